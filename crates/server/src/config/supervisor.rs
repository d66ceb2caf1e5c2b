//! What a supervisor such as systemd tells the process it starts: where it listens for news of it, and how often
//! it wants to hear that the process lives. The names are those of its protocol, sd_notify(3).

use std::collections::BTreeMap;
use std::time::Duration;

/// Who started the process. Without one, nobody is told anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Supervisor {
    /// Its socket: a path, or a name in the abstract namespace behind an `@`.
    pub socket: Option<String>,
    /// After how long a silence it ends the process.
    pub watchdog: Option<Duration>,
}

impl Supervisor {
    /// Reads the variables of the protocol. What is meant for another process, or cannot be read, counts as
    /// not said: no process should fail to start for it.
    pub(super) fn told(env: &BTreeMap<String, String>, process: u32) -> Self {
        let number = |name: &str| env.get(name)?.parse::<u64>().ok();
        let socket = env
            .get("NOTIFY_SOCKET")
            .filter(|socket| socket.starts_with(['/', '@']));
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| ours && *micros > 0);
        Self {
            socket: socket.cloned(),
            watchdog: socket.and(watchdog).map(Duration::from_micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(variables: &[(&str, &str)]) -> Supervisor {
        let env = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Supervisor::told(&env, 7)
    }

    #[test]
    fn what_is_for_this_process_counts() {
        let socket = ("NOTIFY_SOCKET", "/run/systemd/notify");
        assert_eq!(told(&[]), Supervisor::default());
        assert_eq!(told(&[socket]).watchdog, None);
        let limit = ("WATCHDOG_USEC", "30000000");
        let all = told(&[socket, limit, ("WATCHDOG_PID", "7")]);
        assert_eq!(all.socket.as_deref(), Some("/run/systemd/notify"));
        assert_eq!(all.watchdog, Some(Duration::from_secs(30)));
        assert_eq!(told(&[socket, limit]).watchdog, all.watchdog);
        assert_eq!(told(&[socket, limit, ("WATCHDOG_PID", "8")]).watchdog, None);
        assert_eq!(told(&[socket, ("WATCHDOG_USEC", "0")]).watchdog, None);
        assert_eq!(told(&[socket, ("WATCHDOG_USEC", "soon")]).watchdog, None);
        assert_eq!(told(&[limit]), Supervisor::default());
        assert_eq!(told(&[("NOTIFY_SOCKET", "vsock:2:1")]).socket, None);
    }
}

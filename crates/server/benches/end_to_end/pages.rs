//! A browser as far as the bench needs one: it signs in, keeps its cookie, and knows which files a page
//! loads.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::http::{Connection, read_head};
use crate::number::{Epoch, Error, Nanos};
use crate::process::api_key;

/// Where browsers keep the session.
const COOKIE: &str = "cookie";

/// One browser on one connection.
pub(crate) struct Browser {
    addr: SocketAddr,
    connection: Connection,
    cookie: Option<String>,
    epoch: Epoch,
}

/// A page or a file that was loaded.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) status: u16,
    /// Bytes of the body, as it was served.
    pub(crate) bytes: usize,
    /// From the request to the last byte.
    pub(crate) took: Nanos,
    /// The files of the dashboard that it names.
    pub(crate) assets: Vec<String>,
}

impl Browser {
    pub(crate) async fn open(addr: SocketAddr, epoch: Epoch) -> Result<Self, Error> {
        Ok(Self {
            addr,
            connection: Connection::open(addr).await?,
            cookie: None,
            epoch,
        })
    }

    /// Signs in with the bench's key.
    pub(crate) async fn sign_in(&mut self) -> Result<(), Error> {
        let form = format!("key={}&back=", api_key());
        let loaded = self.exchange("POST", "/sign-in", &form).await?;
        if loaded.status == 303 && self.cookie.is_some() {
            return Ok(());
        }
        Err(format!("signing in was answered {}", loaded.status).into())
    }

    /// Loads a page or a file; anything but a 200 is an error.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Loaded, Error> {
        let loaded = self.exchange("GET", path, "").await?;
        if loaded.status == 200 {
            return Ok(loaded);
        }
        Err(format!("GET {path} was answered {}", loaded.status).into())
    }

    async fn exchange(&mut self, method: &str, path: &str, form: &str) -> Result<Loaded, Error> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\naccept-encoding: gzip\r\n",
            self.addr
        );
        if let Some(cookie) = &self.cookie {
            // Writing to a string cannot fail.
            let _written = write!(request, "{COOKIE}: {cookie}\r\n");
        }
        if method == "POST" {
            let _written = write!(
                request,
                "content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n",
                form.len()
            );
        }
        request.push_str("\r\n");
        request.push_str(form);
        let began = self.epoch.now();
        let answer = self.connection.exchange(request.as_bytes()).await?;
        let took = self.epoch.now().saturating_sub(began);
        let loaded = Loaded {
            status: answer.status,
            bytes: answer.body.len(),
            took,
            assets: assets(answer.body),
        };
        if let Some(cookie) = cookie(answer.head) {
            self.cookie = Some(cookie);
        }
        Ok(loaded)
    }
}

/// The files of the dashboard that a page names, each once, in order.
pub(crate) fn assets(html: &[u8]) -> Vec<String> {
    const START: &str = "\"assets/";
    let text = String::from_utf8_lossy(html);
    let mut found = Vec::new();
    for (at, _) in text.match_indices(START) {
        let rest = &text[at + 1..];
        let name = rest.split('"').next().unwrap_or_default().to_owned();
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// The name and value of the cookie that an answer sets.
pub(crate) fn cookie(head: &[u8]) -> Option<String> {
    let mut found = None;
    read_head(head, |name, value| {
        if name.eq_ignore_ascii_case(b"set-cookie") {
            let text = String::from_utf8_lossy(value);
            found = text.split(';').next().map(str::to_owned);
        }
    });
    found
}

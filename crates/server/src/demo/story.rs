//! The course of the demo: rehearse, open, and follow the rotations to their end, telling what happens.

use std::io::Write as _;
use std::time::Duration;

use http::StatusCode;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};

use super::api::{Api, ApiError};
use super::receiver::Receiver;
use super::{DemoError, Options, PATIENCE, Telling, text};

/// How often the rotations are looked at.
const LOOK: Duration = Duration::from_millis(200);

pub(super) struct Story {
    bar: ProgressBar,
    telling: Telling,
    started: Instant,
    step: Duration,
    opened: Instant,
}

impl Story {
    pub(super) fn new(options: Options, started: Instant) -> Self {
        let target = match options.progress {
            Telling::Bar => ProgressDrawTarget::stderr(),
            Telling::Lines | Telling::Not => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(1), target);
        let style = ProgressStyle::with_template("{bar:30} {percent:>3} % {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            bar,
            telling: options.progress,
            started,
            step: options.step,
            opened: started,
        }
    }

    /// Tells a line.
    pub(super) fn say(&self, what: impl AsRef<str>) {
        let line = format!(
            "{:5.1} s  {}",
            self.started.elapsed().as_secs_f64(),
            what.as_ref()
        );
        match self.telling {
            Telling::Not => {}
            // Who reads along may leave: that stops nothing.
            Telling::Lines => {
                let _ = writeln!(std::io::stderr(), "{line}");
            }
            Telling::Bar => self.bar.println(line),
        }
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// Finds out how each receiver verifies, before any new secret exists.
    pub(super) async fn rehearse(
        &self,
        api: &mut Api,
        receivers: &mut [Receiver],
    ) -> Result<(), DemoError> {
        self.say("events flow; each receiver is rehearsed: a few inert requests find out how it verifies");
        for receiver in receivers {
            let path = format!("/v1/endpoints/{}/rehearse", receiver.endpoint());
            let mut accepted = 1;
            let found = loop {
                // Only who accepted something may be probed, and that must have been noted.
                receiver.has_accepted(accepted).await;
                match api.post(&path, &json!({})).await {
                    Err(ApiError::Refused { status, .. })
                        if status == StatusCode::CONFLICT && self.started.elapsed() < PATIENCE =>
                    {
                        accepted = receiver.accepted() + 1;
                    }
                    answered => break answered?,
                }
            };
            self.say(format!("{}: {}", receiver.name(), text(&found, "/words")));
            receiver.found(text(&found, "/class"));
        }
        Ok(())
    }

    /// Opens a proven rotation for each receiver; the owners get the new secrets.
    pub(super) async fn open(
        &mut self,
        api: &mut Api,
        receivers: &[Receiver],
        policy: &Value,
    ) -> Result<(), DemoError> {
        for receiver in receivers {
            let path = format!("/v1/keyrings/{}/rotations", receiver.keyring());
            let asked = json!({ "mode": "proven", "policy": policy, "reason": "demo" });
            let opened = api.post(&path, &asked).await?;
            receiver.rotated(&text(&opened, "/id"), &text(&opened, "/secret/value"));
        }
        self.opened = Instant::now();
        self.say("a proven rotation is open for every receiver; nothing changes until they hold the new secret");
        Ok(())
    }

    /// Lets the receivers deploy, each at its time, and follows the rotations until every one is over
    /// that can be proved.
    pub(super) async fn until_over(
        &self,
        api: &mut Api,
        receivers: &[Receiver],
    ) -> Result<(), DemoError> {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.bar.set_length(receivers.len() as u64);
        loop {
            look.tick().await;
            self.deploy(receivers);
            let (mut over, mut waiting) = (0, None);
            for receiver in receivers {
                if !receiver.is_over() {
                    self.follow(api, receiver).await?;
                }
                if receiver.is_over() {
                    over += 1;
                } else {
                    waiting.get_or_insert(receiver);
                }
            }
            self.bar.set_position(over as u64);
            let Some(waiting) = waiting else {
                return Ok(());
            };
            let words = waiting.words();
            self.bar.set_message(format!("{}: {words}", waiting.name()));
            if self.opened.elapsed() > PATIENCE {
                return Err(DemoError::Unproved {
                    missing: receivers.len() - over,
                    seconds: PATIENCE.as_secs(),
                });
            }
        }
    }

    fn deploy(&self, receivers: &[Receiver]) {
        let elapsed = self.opened.elapsed();
        for receiver in receivers {
            if let Some(machines) = receiver.deploys_by(elapsed, self.step) {
                let name = receiver.name();
                let seconds = self.started.elapsed().as_secs_f64();
                match machines {
                    (count, all) if count < all => {
                        self.say(format!(
                            "{name}: {count} of {all} machines have the new secret"
                        ));
                    }
                    _ => {
                        receiver.has_deployed(seconds);
                        self.say(format!("{name}: the new secret is deployed"));
                    }
                }
            }
        }
    }

    /// Looks at a rotation and tells what is new.
    async fn follow(&self, api: &mut Api, receiver: &Receiver) -> Result<(), DemoError> {
        let path = format!("/v1/rotations/{}", receiver.rotation());
        let rotation = api.get(&path).await?;
        let name = receiver.name();
        let seconds = self.started.elapsed().as_secs_f64();
        receiver.is_said(&text(&rotation, "/endpoints/0/words"));
        if rotation["promotion"]["grounds"] == "proof" {
            let passes = rotation["promotion"]["proved"][0]["passes"].as_u64();
            if receiver.was_promoted(passes.unwrap_or_default(), seconds) {
                self.say(format!(
                    "{name}: proved, {} requests in a row accepted and a random key refused; promoted",
                    passes.unwrap_or_default()
                ));
            }
        }
        if rotation["endpoints"][0]["standing"] == "does_not_verify" && receiver.deployed() {
            receiver.cannot_be_proved();
            self.say(format!("{name}: never promoted, {}", receiver.words()));
        }
        if rotation["stage"] == "completed" {
            receiver.old_is_retired();
            self.say(format!(
                "{name}: the old secret was not needed any more and is retired"
            ));
        }
        Ok(())
    }
}

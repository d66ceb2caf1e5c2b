//! `hookturn migrate`: brings the schema of a PostgreSQL store up to date before a server of this version does.

use clap::Args;

use super::Edge;
use super::exit::{Exit, Failure, Outcome};
use super::output::Output;
use super::serve::{Place, not_started};
use crate::app::migrating::{self, Plan};
use crate::config::StorePlace;

#[derive(Debug, Args)]
pub(super) struct Migrate {
    #[command(flatten)]
    place: Place,
    /// Say what would be done, with every statement, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(asked: &Migrate, edge: &Edge, output: &mut Output) -> Outcome {
    let config = asked.place.load(edge)?;
    let StorePlace::Postgres(database) = &config.store else {
        return Err(Failure::usage(
            "the embedded store is brought up to date by every start of the server",
        )
        .next("for a PostgreSQL store, name it by --store"));
    };
    let plan = if asked.dry_run {
        migrating::plan(database)
    } else {
        migrating::migrate(database)
    };
    let plan = plan.map_err(|error| not_started(&error))?;
    for line in told(&plan, asked.dry_run) {
        output.line(line)?;
    }
    Ok(Exit::Done)
}

fn told(plan: &Plan, dry_run: bool) -> Vec<String> {
    let (found, known) = (plan.found, plan.known);
    if plan.steps.is_empty() {
        let newer = if found > known {
            format!(", newer than the {known} of this version, which it still serves")
        } else {
            String::new()
        };
        return vec![format!(
            "the database has schema {found}{newer}; nothing to do"
        )];
    }
    let verb = if dry_run {
        "would be brought"
    } else {
        "was brought"
    };
    let mut lines = vec![format!(
        "the database {verb} from schema {found} to {known}"
    )];
    for step in &plan.steps {
        lines.push(format!("step {}: {}", step.number, step.what));
        if dry_run {
            lines.push(step.sql.trim_end().to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::migrating::PlannedStep;

    #[test]
    fn a_plan_is_told_with_its_statements_and_what_was_done_without() {
        let step = PlannedStep {
            number: 2,
            what: "who works on the database",
            sql: "CREATE TABLE a ();\n",
        };
        let plan = Plan {
            found: 1,
            known: 2,
            steps: vec![step],
        };
        assert_eq!(
            told(&plan, true),
            [
                "the database would be brought from schema 1 to 2",
                "step 2: who works on the database",
                "CREATE TABLE a ();"
            ]
        );
        assert_eq!(told(&plan, false).len(), 2);
        let done = Plan {
            steps: Vec::new(),
            ..plan
        };
        assert!(
            told(
                &Plan {
                    found: 2,
                    ..done.clone()
                },
                false
            )[0]
            .ends_with("schema 2; nothing to do")
        );
        assert!(told(&Plan { found: 3, ..done }, true)[0].contains("still serves"));
    }
}

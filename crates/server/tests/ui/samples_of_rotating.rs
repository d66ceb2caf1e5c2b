//! The pages about secrets, rotations and who may do what, rendered from their samples: each has one
//! heading, labels for its fields, ids that are there once, nothing inline, and hostile text as text.

use std::collections::BTreeSet;

use askama::Template;
use hookturn::ui::pages::api_keys::{ApiKeys, KeyText, OneKey};
use hookturn::ui::pages::audit::Audit;
use hookturn::ui::pages::keyrings::rotate::Rotate;
use hookturn::ui::pages::keyrings::secret::OneSecret;
use hookturn::ui::pages::keyrings::value::SecretValue;
use hookturn::ui::pages::keyrings::{OneKeyring, Secrets};
use hookturn::ui::pages::rotations::{OneRotation, Rotations};
use hookturn::ui::pages::settings::Settings;

fn rendered<T: Template>(samples: Vec<(&'static str, T)>) -> Vec<(&'static str, String)> {
    let render = |(name, sample): (&'static str, T)| (name, sample.render().unwrap());
    samples.into_iter().map(render).collect()
}

fn values_of(html: &str, attribute: &str) -> Vec<String> {
    let begin = format!(" {attribute}=\"");
    let rest = html.split(&begin).skip(1);
    rest.map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_page_is_sound_in_every_state() {
    let pages = [
        rendered(Secrets::samples()),
        rendered(OneKeyring::samples()),
        rendered(OneSecret::samples()),
        rendered(SecretValue::samples()),
        rendered(Rotate::samples()),
        rendered(Rotations::samples()),
        rendered(OneRotation::samples()),
        rendered(Audit::samples()),
        rendered(ApiKeys::samples()),
        rendered(OneKey::samples()),
        rendered(KeyText::samples()),
        rendered(Settings::samples()),
    ];
    for (name, html) in pages.iter().flatten() {
        assert_eq!(html.matches("<h1").count(), 1, "{name}");
        for inline in [
            "<script>",
            "<style",
            " style=\"",
            " onclick=",
            "javascript:",
        ] {
            assert!(!html.contains(inline), "{name} has {inline}");
        }
        let ids = values_of(html, "id");
        let distinct: BTreeSet<&String> = ids.iter().collect();
        assert_eq!(ids.len(), distinct.len(), "{name}: {ids:?}");
        let labelled = values_of(html, "for");
        for tag in ["<input ", "<select ", "<textarea "] {
            for field in html.split(tag).skip(1) {
                let field = field.split('>').next().unwrap();
                if field.contains("type=\"hidden\"") {
                    continue;
                }
                let id = values_of(&format!(" {field}"), "id");
                assert!(labelled.contains(&id[0]), "{name}: no label for {field}");
            }
        }
        for attribute in ["aria-describedby", "aria-labelledby"] {
            for named in values_of(html, attribute) {
                assert!(ids.contains(&named), "{name}: {attribute} names {named}");
            }
        }
    }
}

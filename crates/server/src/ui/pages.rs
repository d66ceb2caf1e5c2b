//! The pages. Each is a template with the values it shows, made from what the service answers, and has
//! samples that a test renders.

pub mod api_keys;
pub mod apps;
pub mod audit;
pub mod bulks;
pub mod deliveries;
pub mod inbox;
pub mod keyrings;
pub mod overview;
pub mod palette;
pub mod rotations;
pub mod schedules;
pub mod settings;
pub mod sign_in;

use askama::Template;

/// Every sample of every page: its name and its HTML, or why it could not be rendered.
pub fn samples() -> Vec<(&'static str, askama::Result<String>)> {
    let mut all = rendered(sign_in::SignIn::samples());
    all.extend(rendered(overview::Overview::samples()));
    all.extend(rendered(apps::Apps::samples()));
    all.extend(rendered(apps::app::AppPage::samples()));
    all.extend(rendered(apps::endpoint::EndpointPage::samples()));
    all.extend(rendered(apps::endpoint_form::EndpointForm::samples()));
    all.extend(rendered(apps::endpoint_form::EndpointMade::samples()));
    all.extend(rendered(inbox::InboxPage::samples()));
    all.extend(rendered(deliveries::Deliveries::samples()));
    all.extend(rendered(deliveries::bulk::Retry::samples()));
    all.extend(rendered(deliveries::inspect::Inspector::samples()));
    all.extend(rendered(keyrings::Secrets::samples()));
    all.extend(rendered(keyrings::OneKeyring::samples()));
    all.extend(rendered(keyrings::secret::OneSecret::samples()));
    all.extend(rendered(keyrings::value::SecretValue::samples()));
    all.extend(rendered(keyrings::rotate::Rotate::samples()));
    all.extend(rendered(rotations::Rotations::samples()));
    all.extend(rendered(rotations::OneRotation::samples()));
    all.extend(rendered(bulks::Bulks::samples()));
    all.extend(rendered(bulks::OneBulk::samples()));
    all.extend(rendered(bulks::form::BulkForm::samples()));
    all.extend(rendered(schedules::Schedules::samples()));
    all.extend(rendered(schedules::OneSchedule::samples()));
    all.extend(rendered(schedules::form::ScheduleForm::samples()));
    all.extend(rendered(audit::Audit::samples()));
    all.extend(rendered(api_keys::ApiKeys::samples()));
    all.extend(rendered(api_keys::OneKey::samples()));
    all.extend(rendered(api_keys::KeyText::samples()));
    all.extend(rendered(settings::Settings::samples()));
    all
}

fn rendered<T: Template>(
    samples: Vec<(&'static str, T)>,
) -> Vec<(&'static str, askama::Result<String>)> {
    let rendered = |(name, page): (&'static str, T)| (name, page.render());
    samples.into_iter().map(rendered).collect()
}

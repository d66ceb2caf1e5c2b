//! Where the data is: the embedded store, or a PostgreSQL database.
//!
//! A URL may hold a password. In the environment it may; on the command line, where everyone on the machine
//! sees it, and in the file, which is read by more people than it seems, it is refused.

use super::{ConfigError, SecretText, Variables};

/// Where the data is.
#[derive(Debug, Clone, Default)]
pub enum StorePlace {
    /// In a file of the data directory.
    #[default]
    Embedded,
    /// In a PostgreSQL database.
    Postgres(Database),
}

/// A PostgreSQL database.
#[derive(Debug, Clone)]
pub struct Database {
    /// Its URL, perhaps with a password.
    pub url: SecretText,
    /// The password, if it is not in the URL.
    pub password: Option<SecretText>,
}

/// What was given, and where.
struct Given {
    name: &'static str,
    url: String,
    /// Whether nobody else reads it there.
    private: bool,
}

pub(super) fn load(
    flag: Option<String>,
    file: Option<String>,
    variables: &mut Variables<'_>,
) -> Result<StorePlace, ConfigError> {
    let password = variables.secret("HOOKTURN_STORE_PASSWORD", "HOOKTURN_STORE_PASSWORD_FILE")?;
    let variable = variables.get("HOOKTURN_STORE");
    let places = [
        ("--store", flag, false),
        ("HOOKTURN_STORE", variable, true),
        ("the key store", file, false),
    ];
    let given = places.into_iter().find_map(|(name, url, private)| {
        let url = url.filter(|url| !url.is_empty())?;
        Some(Given { name, url, private })
    });
    let Some(Given { name, url, private }) = given else {
        return Ok(StorePlace::Embedded);
    };
    let Some(rest) = ["postgres://", "postgresql://"]
        .into_iter()
        .find_map(|scheme| url.strip_prefix(scheme))
    else {
        return Err(ConfigError::StoreUrl { name });
    };
    let inside = holds_password(rest);
    if inside && !private {
        return Err(ConfigError::StorePassword { name });
    }
    if inside && password.is_some() {
        return Err(ConfigError::StorePasswordTwice);
    }
    Ok(StorePlace::Postgres(Database {
        url: SecretText::new(&url),
        password,
    }))
}

/// Whether a URL without its scheme names a password: `user:password@` or a parameter.
fn holds_password(rest: &str) -> bool {
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = place.split('/').next().unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    // A password may hold a slash that nobody encoded: then there is an @ behind it.
    let user = user.or_else(|| place.rsplit_once('@').map(|(user, _)| user));
    let mut names = parameters.split('&').map(|pair| pair.split('=').next());
    user.is_some_and(|user| user.contains(':')) || names.any(|name| name == Some("password"))
}

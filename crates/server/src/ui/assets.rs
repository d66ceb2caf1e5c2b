//! The files that pages load: compiled in, compressed once, and named by their content, so that a browser
//! may keep each for ever.
//!
//! `htmx.js` is htmx 4.0.1 as published (Zero-Clause BSD).

use std::io::Write as _;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};

use super::compressed::takes_gzip;

/// One file.
#[derive(Debug)]
pub struct Asset {
    /// Its name with eight digits of its content's hash, as pages ask for it.
    pub name: String,
    media_type: &'static str,
    plain: &'static [u8],
    compressed: Vec<u8>,
}

impl Asset {
    fn new(stem: &str, extension: &str, media_type: &'static str, plain: &'static [u8]) -> Self {
        let hash = hex::encode(&Sha256::digest(plain)[..4]);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Writing to memory cannot fail; an empty file would be served plain.
        let written = encoder.write_all(plain);
        let compressed = written.and_then(|()| encoder.finish()).unwrap_or_default();
        Self {
            name: format!("{stem}.{hash}.{extension}"),
            media_type,
            plain,
            compressed,
        }
    }

    /// Bytes that a browser loads.
    pub fn compressed_bytes(&self) -> usize {
        self.compressed.len()
    }
}

/// All files.
#[derive(Debug)]
pub struct Assets {
    /// The style sheet.
    pub style: Asset,
    /// htmx.
    pub htmx: Asset,
    /// What else pages do in the browser.
    pub script: Asset,
    /// The command palette and the shortcuts.
    pub palette: Asset,
    /// The mark, for the browser's tabs.
    pub icon: Asset,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All files, made ready at the first use.
pub static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    style: Asset::new(
        "style",
        "css",
        "text/css; charset=utf-8",
        concat!(
            include_str!("assets/style.css"),
            include_str!("assets/pages.css")
        )
        .as_bytes(),
    ),
    htmx: Asset::new("htmx", "js", SCRIPT, include_bytes!("assets/htmx.js")),
    script: Asset::new(
        "hookturn",
        "js",
        SCRIPT,
        include_bytes!("assets/hookturn.js"),
    ),
    palette: Asset::new("palette", "js", SCRIPT, include_bytes!("assets/palette.js")),
    icon: Asset::new(
        "icon",
        "svg",
        "image/svg+xml",
        include_bytes!("assets/icon.svg"),
    ),
});

impl Assets {
    /// Each of them.
    pub fn all(&self) -> [&Asset; 5] {
        [
            &self.style,
            &self.htmx,
            &self.script,
            &self.palette,
            &self.icon,
        ]
    }
}

/// Answers a file.
pub(super) async fn serve(Path(name): Path<String>, asked: HeaderMap) -> Response {
    let Some(asset) = ASSETS.all().into_iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let kept = [
        (header::CONTENT_TYPE, asset.media_type),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (header::VARY, "accept-encoding"),
    ];
    if takes_gzip(&asked) && !asset.compressed.is_empty() {
        let coding = [(header::CONTENT_ENCODING, "gzip")];
        (kept, coding, asset.compressed.as_slice()).into_response()
    } else {
        (kept, asset.plain).into_response()
    }
}

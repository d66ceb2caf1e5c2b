//! How a receiver verifies, as code to start from: one snippet per language, for the scheme and the header
//! names that its endpoint uses. No snippet holds a secret: each reads it from the environment. A test
//! compiles and runs every one of them against what the server signed.

use std::borrow::Cow;

use hookturn_core::endpoint::Preset;
use hookturn_verify::{HeaderNames, Scheme};

/// Code in one language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// For `id`s on the page.
    pub id: &'static str,
    /// The language, and what it stands on.
    pub title: &'static str,
    /// The code.
    pub code: String,
}

/// The snippets of a preset.
pub fn snippets(preset: Preset, names: &HeaderNames, is_ed25519: bool) -> Vec<Snippet> {
    let rust = Snippet {
        id: "rust",
        title: "Rust, hookturn-verify",
        code: rust(preset, names, is_ed25519),
    };
    if is_ed25519 {
        return vec![rust];
    }
    let [node, python, go] = match preset {
        Preset::Standard => standard(names),
        Preset::Hopae => hopae(&names.signature),
        Preset::Kore | Preset::KoreStream => kore(&names.signature),
        Preset::Github => github(&names.signature),
    };
    let is_library = preset == Preset::Standard;
    let title = |with: &'static str, without: &'static str| if is_library { with } else { without };
    vec![
        Snippet {
            id: "node",
            title: title("Node.js, standardwebhooks", "Node.js, node:crypto"),
            code: node,
        },
        Snippet {
            id: "python",
            title: title("Python, standardwebhooks", "Python, hmac and hashlib"),
            code: python,
        },
        Snippet {
            id: "go",
            title: "Go, standard library",
            code: go,
        },
        rust,
    ]
}

/// A header name as a word in quotes; a white-label name cannot end them, for it is a header name.
fn standard(names: &HeaderNames) -> [String; 3] {
    let own = HeaderNames::of(Scheme::Standard);
    let pair = |own: &Option<Cow<'static, str>>, sent: &Option<Cow<'static, str>>| {
        let own = own.clone().unwrap_or_default();
        let sent = sent.clone().unwrap_or_else(|| own.clone());
        (own, sent)
    };
    let pairs = [
        pair(&own.id, &names.id),
        pair(&own.timestamp, &names.timestamp),
        (own.signature.clone(), names.signature.clone()),
    ];
    let js = pairs
        .each_ref()
        .map(|(own, sent)| {
            format!(
                "  \"{own}\": request.headers[\"{}\"],\n",
                sent.to_ascii_lowercase()
            )
        })
        .concat();
    let python = pairs
        .each_ref()
        .map(|(own, sent)| format!("    \"{own}\": request.headers[\"{sent}\"],\n"))
        .concat();
    let [(_, id), (_, timestamp), (_, signature)] = &pairs;
    [
        format!(
            "import {{ Webhook }} from \"standardwebhooks\";\n\nconst webhook = new Webhook(process.env.WEBHOOK_SECRET);\n// The raw body, before any JSON parser; throws when no signature matches.\nconst event = webhook.verify(rawBody, {{\n{js}}});\n"
        ),
        format!(
            "import os\nfrom standardwebhooks.webhooks import Webhook\n\nwebhook = Webhook(os.environ[\"WEBHOOK_SECRET\"])\n# The raw body, before any JSON parser; raises when no signature matches.\nevent = webhook.verify(raw_body, {{\n{python}}})\n"
        ),
        format!(
            "id, timestamp := request.Header.Get(\"{id}\"), request.Header.Get(\"{timestamp}\")\nseconds, _ := strconv.ParseInt(timestamp, 10, 64)\nage := time.Now().Unix() - seconds\nfresh := -300 <= age && age <= 300\nsecret := os.Getenv(\"WEBHOOK_SECRET\")\nkey, _ := base64.StdEncoding.DecodeString(secret[strings.Index(secret, \"_\")+1:]) // without its prefix\nmac := hmac.New(sha256.New, key)\nmac.Write([]byte(id + \".\" + timestamp + \".\"))\nmac.Write(rawBody) // before any JSON parser\nvalid := false\nfor _, part := range strings.Fields(request.Header.Get(\"{signature}\")) {{\n\treceived, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(part, \"v1,\"))\n\tvalid = valid || fresh && hmac.Equal(received, mac.Sum(nil))\n}}\n"
        ),
    ]
}

fn hopae(signature: &str) -> [String; 3] {
    let lower = signature.to_ascii_lowercase();
    [
        format!(
            "import {{ createHmac, timingSafeEqual }} from \"node:crypto\";\n\nconst parts = Object.fromEntries(request.headers[\"{lower}\"].split(\",\").map((part) => part.split(\"=\")));\nconst fresh = Math.abs(Date.now() / 1000 - Number(parts.t)) <= 300;\n// The raw body, before any JSON parser.\nconst expected = createHmac(\"sha256\", process.env.WEBHOOK_SECRET).update(`${{parts.t}}.`).update(rawBody).digest();\nconst received = Buffer.from(parts.v1, \"hex\");\nconst valid = fresh && received.length === expected.length && timingSafeEqual(received, expected);\n"
        ),
        format!(
            "import hashlib, hmac, os, time\n\nparts = dict(part.split(\"=\", 1) for part in request.headers[\"{signature}\"].split(\",\"))\nfresh = abs(time.time() - int(parts[\"t\"])) <= 300\n# The raw body, before any JSON parser.\nexpected = hmac.new(os.environ[\"WEBHOOK_SECRET\"].encode(), parts[\"t\"].encode() + b\".\" + raw_body, hashlib.sha256).hexdigest()\nvalid = fresh and hmac.compare_digest(expected, parts[\"v1\"])\n"
        ),
        format!(
            "parts := map[string]string{{}}\nfor _, part := range strings.Split(request.Header.Get(\"{signature}\"), \",\") {{\n\tname, value, _ := strings.Cut(part, \"=\")\n\tparts[name] = value\n}}\nseconds, _ := strconv.ParseInt(parts[\"t\"], 10, 64)\nage := time.Now().Unix() - seconds\nfresh := -300 <= age && age <= 300\nmac := hmac.New(sha256.New, []byte(os.Getenv(\"WEBHOOK_SECRET\")))\nmac.Write([]byte(parts[\"t\"] + \".\"))\nmac.Write(rawBody) // before any JSON parser\nreceived, _ := hex.DecodeString(parts[\"v1\"])\nvalid := fresh && hmac.Equal(received, mac.Sum(nil))\n"
        ),
    ]
}

fn kore(signature: &str) -> [String; 3] {
    let lower = signature.to_ascii_lowercase();
    [
        format!(
            "import {{ createHash, timingSafeEqual }} from \"node:crypto\";\n\n// The URL as it was configured, up to the first ? or #; the raw body, before any JSON parser.\nconst expected = createHash(\"sha256\").update(process.env.WEBHOOK_SECRET).update(request.method).update(CONFIGURED_URL).update(rawBody).digest();\nconst received = Buffer.from(request.headers[\"{lower}\"] ?? \"\", \"hex\");\nconst valid = received.length === expected.length && timingSafeEqual(received, expected);\n"
        ),
        format!(
            "import hashlib, hmac, os\n\n# The URL as it was configured, up to the first ? or #; the raw body, before any JSON parser.\nsigned = os.environ[\"WEBHOOK_SECRET\"].encode() + request.method.encode() + CONFIGURED_URL.encode() + raw_body\nvalid = hmac.compare_digest(hashlib.sha256(signed).hexdigest(), request.headers[\"{signature}\"])\n"
        ),
        format!(
            "// The URL as it was configured, up to the first ? or #; the raw body, before any JSON parser.\ndigest := sha256.New()\ndigest.Write([]byte(os.Getenv(\"WEBHOOK_SECRET\") + request.Method + configuredURL))\ndigest.Write(rawBody)\nreceived, _ := hex.DecodeString(request.Header.Get(\"{signature}\"))\nvalid := subtle.ConstantTimeCompare(received, digest.Sum(nil)) == 1\n"
        ),
    ]
}

fn github(signature: &str) -> [String; 3] {
    let lower = signature.to_ascii_lowercase();
    [
        format!(
            "import {{ createHmac, timingSafeEqual }} from \"node:crypto\";\n\n// The raw body, before any JSON parser.\nconst expected = Buffer.from(\"sha256=\" + createHmac(\"sha256\", process.env.WEBHOOK_SECRET).update(rawBody).digest(\"hex\"));\nconst received = Buffer.from(request.headers[\"{lower}\"] ?? \"\");\nconst valid = received.length === expected.length && timingSafeEqual(received, expected);\n"
        ),
        format!(
            "import hashlib, hmac, os\n\n# The raw body, before any JSON parser.\nexpected = \"sha256=\" + hmac.new(os.environ[\"WEBHOOK_SECRET\"].encode(), raw_body, hashlib.sha256).hexdigest()\nvalid = hmac.compare_digest(expected, request.headers[\"{signature}\"])\n"
        ),
        format!(
            "mac := hmac.New(sha256.New, []byte(os.Getenv(\"WEBHOOK_SECRET\")))\nmac.Write(rawBody) // before any JSON parser\nexpected := \"sha256=\" + hex.EncodeToString(mac.Sum(nil))\nvalid := hmac.Equal([]byte(expected), []byte(request.Header.Get(\"{signature}\")))\n"
        ),
    ]
}

fn rust(preset: Preset, names: &HeaderNames, is_ed25519: bool) -> String {
    let variant = match preset {
        Preset::Standard => "Standard",
        Preset::Hopae => "Hopae",
        Preset::Kore | Preset::KoreStream => "Kore",
        Preset::Github => "Github",
    };
    let (kind, key) = if is_ed25519 {
        let key = "public_key(\"current\", &std::env::var(\"WEBHOOK_PUBLIC_KEY\")?.parse()?)?";
        ("PublicKey", key)
    } else {
        let key = "secret(\"current\", &Secret::parse(&std::env::var(\"WEBHOOK_SECRET\")?)?)?";
        ("Secret", key)
    };
    let own = HeaderNames::of(preset.scheme());
    let renamed = if own.signature == names.signature
        && (own.id.is_none() || own.id == names.id)
        && own.timestamp == names.timestamp
    {
        String::new()
    } else {
        let option = |name: &Option<Cow<'static, str>>| {
            name.as_ref().map_or_else(
                || "None".to_owned(),
                |name| format!("Some(\"{}\".into())", name.to_ascii_lowercase()),
            )
        };
        format!(
            "\n    .header_names(HeaderNames {{ id: {}, timestamp: {}, signature: \"{}\".into() }})",
            option(&names.id),
            option(&names.timestamp),
            names.signature.to_ascii_lowercase(),
        )
    };
    let kind = if is_ed25519 {
        String::new()
    } else {
        format!("{kind}, ")
    };
    let import = if renamed.is_empty() {
        ""
    } else {
        "HeaderNames, "
    };
    format!(
        "use hookturn_verify::{{{import}Received, Scheme, {kind}Verifier}};\n\nlet verifier = Verifier::new(Scheme::{variant})\n    .{key}{renamed};\n// The raw body, before any JSON parser; the error says why when no signature matches.\nlet verified = verifier.verify(&Received {{ method: \"POST\", url: CONFIGURED_URL, headers: &headers, body: &raw_body }}, now)?;\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_has_every_language_and_its_header_names() {
        for preset in Preset::ALL {
            let names = HeaderNames {
                signature: "X-Acme-Signature".into(),
                ..HeaderNames::of(preset.scheme())
            };
            let found = snippets(preset, &names, false);
            assert_eq!(found.len(), 4);
            for snippet in found {
                let code = snippet.code.to_ascii_lowercase();
                assert!(code.contains("\"x-acme-signature\""), "{preset}: {code}");
                assert!(code.contains("webhook_secret"), "{preset}: {code}");
                assert!(!snippet.code.contains("whsec_"), "{preset}");
            }
        }
    }

    #[test]
    fn ed25519_is_verified_with_the_public_key() {
        let found = snippets(Preset::Standard, &HeaderNames::of(Scheme::Standard), true);
        assert!(found[0].code.contains(".public_key("), "{}", found[0].code);
        assert!(!found[0].code.contains("header_names"));
    }
}

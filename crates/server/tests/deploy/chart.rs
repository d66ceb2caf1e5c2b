//! The chart: its templates render with Go's own `text/template` and are the Kubernetes objects they should be.
//!
//! No Helm and no cluster here: what they would refuse besides is not known.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::files::{deploy, document, documents, installed, made, read};

const NAME: &str = "shop-hookturn";

/// The program that renders, compiled once.
fn renderer() -> &'static Path {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let place = MADE.get_or_init(|| {
        let place = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/deploy/render.go");
        let mut gccgo = Command::new("gccgo");
        made(gccgo.arg("-o").arg(place.path().join("render")).arg(source));
        place
    });
    place.path()
}

/// Lays what is given over the defaults, as Helm does.
fn merge(defaults: &mut Value, given: &Value) {
    match (defaults, given) {
        (Value::Object(defaults), Value::Object(given)) => {
            for (key, value) in given {
                merge(defaults.entry(key).or_insert(Value::Null), value);
            }
        }
        (place, given) => *place = given.clone(),
    }
}

/// What must be given.
fn least() -> Value {
    json!({
        "database": { "url": "postgres://hookturn@db.internal/hookturn?sslmode=verify-full" },
        "secrets": { "existingSecret": "hookturn" },
    })
}

fn values(given: &Value) -> Value {
    let mut values = document("helm/hookturn/values.yaml");
    merge(&mut values, &least());
    merge(&mut values, given);
    values
}

/// What the templates say for these values, or why they say nothing.
fn try_render(values: &Value) -> Result<BTreeMap<String, String>, String> {
    let chart = document("helm/hookturn/Chart.yaml");
    let mut templates = BTreeMap::new();
    for entry in fs::read_dir(deploy().join("helm/hookturn/templates")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        templates.insert(name, fs::read_to_string(&path).unwrap());
    }
    let input = json!({
        "root": {
            "Values": values,
            "Chart": {
                "Name": chart["name"],
                "Version": chart["version"],
                "AppVersion": chart["appVersion"],
            },
            "Release": { "Name": "shop", "Namespace": "webhooks", "Service": "Helm" },
        },
        "templates": templates,
    });
    let mut render = Command::new(renderer().join("render"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = render.stdin.take().unwrap();
    to.write_all(input.to_string().as_bytes()).unwrap();
    drop(to);
    let output = render.wait_with_output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(serde_json::from_slice(&output.stdout).unwrap())
}

/// The objects by kind.
fn objects(given: &Value) -> BTreeMap<String, Value> {
    let rendered = try_render(&values(given)).unwrap_or_else(|why| panic!("{why}"));
    let mut objects = BTreeMap::new();
    for (name, text) in rendered {
        if name == "NOTES.txt" {
            continue;
        }
        for object in documents(&text)
            .into_iter()
            .filter(|object| !object.is_null())
        {
            for member in ["apiVersion", "kind", "metadata", "spec"] {
                let plain = object["kind"] == "ServiceAccount" && member == "spec";
                assert!(plain || !object[member].is_null(), "{name}: no {member}");
            }
            let labels = &object["metadata"]["labels"];
            assert_eq!(labels["app.kubernetes.io/name"], "hookturn", "{name}");
            assert_eq!(labels["app.kubernetes.io/instance"], "shop", "{name}");
            let kind = object["kind"].as_str().unwrap().to_owned();
            assert!(objects.insert(kind, object).is_none(), "{name}");
        }
    }
    objects
}

fn pod(objects: &BTreeMap<String, Value>) -> &Value {
    &objects["Deployment"]["spec"]["template"]["spec"]
}

fn variables(pod: &Value) -> BTreeMap<String, String> {
    let variables = pod["containers"][0]["env"].as_array().unwrap();
    let text = |value: &Value| {
        value
            .as_str()
            .unwrap_or_else(|| panic!("{value}"))
            .to_owned()
    };
    variables
        .iter()
        .map(|one| (text(&one["name"]), text(&one["value"])))
        .collect()
}

/// What the schema says is wrong with values.
fn wrong(values: &Value) -> String {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("values.json");
    fs::write(&path, values.to_string()).unwrap();
    let judges = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/judges");
    let mut python = Command::new(installed("HOOKTURN_JUDGE_PYTHON"));
    python.arg(judges.join("read_yaml.py")).arg(path);
    made(python.arg(deploy().join("helm/hookturn/values.schema.json")))
}

#[test]
fn the_least_that_can_be_given_makes_two_servers_that_may_do_little() {
    let objects = objects(&json!({}));
    let kinds: Vec<_> = objects.keys().map(String::as_str).collect();
    assert_eq!(
        kinds,
        [
            "Deployment",
            "NetworkPolicy",
            "PodDisruptionBudget",
            "Service",
            "ServiceAccount"
        ]
    );
    let deployment = &objects["Deployment"]["spec"];
    assert_eq!(deployment["replicas"], 2);
    assert_eq!(deployment["strategy"]["type"], "RollingUpdate");
    // One goes on, whatever is done to the other.
    let replaced = &deployment["strategy"]["rollingUpdate"];
    assert_eq!(replaced["maxUnavailable"], 1);
    let budget = &objects["PodDisruptionBudget"]["spec"];
    assert_eq!(budget["maxUnavailable"], 1);
    let spread = &deployment["template"]["spec"]["topologySpreadConstraints"][0];
    assert_eq!(spread["topologyKey"], "kubernetes.io/hostname");
    assert_eq!(
        spread["labelSelector"]["matchLabels"],
        deployment["selector"]["matchLabels"]
    );
    let labels = &deployment["template"]["metadata"]["labels"];
    assert_eq!(&deployment["selector"]["matchLabels"], labels);
    assert_eq!(&objects["Service"]["spec"]["selector"], labels);
    let policy = &objects["NetworkPolicy"]["spec"];
    assert_eq!(&policy["podSelector"]["matchLabels"], labels);
    let pod = pod(&objects);
    assert_eq!(pod["serviceAccountName"], NAME);
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(container["startupProbe"]["httpGet"]["path"], "/livez");
    assert!(container["resources"]["limits"]["memory"].is_string());
    let given = policy["egress"].as_array().unwrap();
    let refused = given[2]["to"][0]["ipBlock"]["except"].as_array().unwrap();
    assert!(refused.contains(&json!("169.254.0.0/16")), "{refused:?}");
    assert_eq!(given[2]["ports"].as_array().unwrap().len(), 1);
}

/// A budget would keep the machine of the only one from being drained.
#[test]
fn one_server_alone_is_stopped_before_the_next_one_starts_and_holds_up_no_drain() {
    let objects = objects(&json!({ "replicaCount": 1 }));
    assert!(!objects.contains_key("PodDisruptionBudget"));
    let deployment = &objects["Deployment"]["spec"];
    assert_eq!(deployment["strategy"]["type"], "Recreate");
    assert!(pod(&objects)["topologySpreadConstraints"].is_null());
}

/// The paths that the variables name are the files that the pod has.
#[test]
fn every_secret_is_a_file_that_is_mounted() {
    let ca = json!({ "database": { "caSecret": "database-ca" } });
    let objects = objects(&ca);
    let pod = pod(&objects);
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    let mut files = Vec::new();
    for volume in pod["volumes"].as_array().unwrap() {
        let mount = mounts.iter().find(|mount| mount["name"] == volume["name"]);
        let mount = mount.unwrap();
        assert_eq!(mount["readOnly"], true);
        for item in volume["secret"]["items"].as_array().unwrap() {
            let (path, file) = (mount["mountPath"].as_str(), item["path"].as_str());
            files.push(format!("{}/{}", path.unwrap(), file.unwrap()));
        }
    }
    assert_eq!(mounts.len(), pod["volumes"].as_array().unwrap().len());
    let variables = variables(pod);
    let named: Vec<_> = variables
        .iter()
        .filter(|(name, _)| name.ends_with("_FILE"))
        .collect();
    assert_eq!(named.len(), 3);
    for (name, path) in named {
        assert!(files.contains(path), "{name}={path} is not in {files:?}");
    }
    assert!(files.contains(&"/etc/hookturn/database-ca/ca.crt".to_owned()));
    // No secret is a value.
    for name in ["HOOKTURN_MASTER_KEY", "HOOKTURN_STORE_PASSWORD"] {
        assert!(!variables.contains_key(name));
    }
}

#[test]
fn what_is_given_is_what_is_made() {
    let given = json!({
        "replicaCount": 3,
        "image": { "tag": "0.2.0" },
        "environment": { "HOOKTURN_RETENTION_DAYS": "14" },
        "delivery": { "allowHttp": true, "allowNets": ["10.20.0.0/16", "192.0.2.0/24"] },
        "networkPolicy": {
            "ingressFrom": [{ "namespaceSelector": { "matchLabels": { "name": "web" } } }],
            "metricsFrom": [{ "podSelector": { "matchLabels": { "app": "prometheus" } } }],
            "databaseTo": [{ "ipBlock": { "cidr": "10.1.2.3/32" } }],
            "deliveryPorts": [8443],
        },
        "serviceAccount": { "annotations": { "a": "b" } },
        "serviceMonitor": { "enabled": true, "labels": { "release": "prometheus" } },
        "podAnnotations": { "c": "d" },
        "tolerations": [{ "key": "dedicated", "operator": "Exists" }],
        "nodeSelector": { "disk": "fast" },
        "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "zone" }],
        "imagePullSecrets": [{ "name": "registry" }],
        "priorityClassName": "high",
    });
    assert_eq!(wrong(&values(&given)), "");
    let objects = objects(&given);
    assert_eq!(objects.len(), 6, "{:?}", objects.keys());
    let deployment = &objects["Deployment"]["spec"];
    assert_eq!(deployment["strategy"]["type"], "RollingUpdate");
    let template = &deployment["template"];
    assert_eq!(template["metadata"]["annotations"]["c"], "d");
    let pod = pod(&objects);
    assert_eq!(pod["tolerations"][0]["key"], "dedicated");
    assert_eq!(pod["nodeSelector"]["disk"], "fast");
    assert_eq!(pod["topologySpreadConstraints"][0]["maxSkew"], 1);
    assert_eq!(pod["imagePullSecrets"][0]["name"], "registry");
    assert_eq!(pod["priorityClassName"], "high");
    let image = pod["containers"][0]["image"].as_str().unwrap();
    assert!(image.ends_with(":0.2.0"), "{image}");
    let variables = variables(pod);
    assert_eq!(variables["HOOKTURN_ALLOW_HTTP"], "true");
    assert_eq!(
        variables["HOOKTURN_ALLOW_NETS"],
        "10.20.0.0/16,192.0.2.0/24"
    );
    assert_eq!(variables["HOOKTURN_RETENTION_DAYS"], "14");
    let policy = &objects["NetworkPolicy"]["spec"];
    assert_eq!(policy["ingress"][0]["from"].as_array().unwrap().len(), 2);
    let egress = policy["egress"].as_array().unwrap();
    assert_eq!(egress[1]["to"][0]["ipBlock"]["cidr"], "10.1.2.3/32");
    assert_eq!(egress[2]["to"].as_array().unwrap().len(), 4);
    let ports = egress[2]["ports"].as_array().unwrap().iter();
    let ports: Vec<_> = ports.map(|port| port["port"].as_u64().unwrap()).collect();
    assert_eq!(ports, [443, 80, 8443]);
    let budget = &objects["PodDisruptionBudget"]["spec"];
    assert_eq!(budget["maxUnavailable"], 1);
    assert_eq!(
        budget["selector"]["matchLabels"],
        deployment["selector"]["matchLabels"]
    );
    let monitor = &objects["ServiceMonitor"];
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    // The job of the rules.
    assert_eq!(monitor["spec"]["jobLabel"], "app.kubernetes.io/name");
}

#[test]
fn what_cannot_be_right_is_refused() {
    assert_eq!(wrong(&values(&json!({}))), "");
    let refused = [
        json!({ "database": { "url": "postgres://hookturn:secret@db/hookturn" } }),
        json!({ "database": { "url": "mysql://db/hookturn" } }),
        json!({ "secrets": { "existingSecret": "" } }),
        json!({ "environment": { "HOOKTURN_MASTER_KEY": "a" } }),
        json!({ "environment": { "PATH": "/" } }),
        json!({ "environment": { "HOOKTURN_RETENTION_DAYS": 14 } }),
        json!({ "terminationGracePeriodSeconds": 30 }),
        json!({ "delivery": { "allowNets": ["10.0.0.1"] } }),
        json!({ "replicas": 2 }),
    ];
    for given in refused {
        assert_ne!(wrong(&values(&given)), "", "{given}");
    }
    // Without the schema, the templates themselves ask for what must be there.
    let mut without = values(&json!({}));
    without["database"]["url"] = "".into();
    let why = try_render(&without).unwrap_err();
    assert!(why.contains("database.url is required"), "{why}");
}

/// The schema knows every value that there is, and only these.
#[test]
fn the_schema_has_every_value() {
    fn compare(path: &str, values: &Value, schema: &Value) {
        let Some(known) = schema["properties"].as_object() else {
            return;
        };
        let names: Vec<_> = values.as_object().unwrap().keys().collect();
        // Helm gives every chart this one.
        let known: Vec<_> = known.keys().filter(|name| *name != "global").collect();
        let sorted = |mut names: Vec<&String>| {
            names.sort();
            names.into_iter().cloned().collect::<Vec<_>>()
        };
        assert_eq!(sorted(names.clone()), sorted(known), "{path}");
        for name in names {
            let below = &schema["properties"][name];
            compare(&format!("{path}/{name}"), &values[name], below);
        }
    }
    let schema = serde_json::from_str(&read("helm/hookturn/values.schema.json")).unwrap();
    compare("", &document("helm/hookturn/values.yaml"), &schema);
}

#[test]
fn the_notes_say_how_to_get_at_the_first_key() {
    let rendered = try_render(&values(&json!({}))).unwrap();
    let notes = &rendered["NOTES.txt"];
    assert!(
        notes.contains("http://shop-hookturn.webhooks.svc:80"),
        "{notes}"
    );
    assert!(
        notes.contains(r#"{{ index .data "bootstrap-api-key" | base64decode }}"#),
        "{notes}"
    );
}

#[test]
fn the_versions_are_those_of_the_program() {
    let chart = document("helm/hookturn/Chart.yaml");
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn compose_gives_each_service_only_what_it_needs() {
    let compose = document("compose/compose.yaml");
    let secrets = compose["secrets"].as_object().unwrap();
    let server = &compose["services"]["hookturn"];
    let database = &compose["services"]["postgres"];
    let drawn = read("compose/make-secrets.sh");
    for name in secrets.keys() {
        assert_eq!(secrets[name]["file"], format!("./secrets/{name}"));
        assert!(drawn.contains(&format!("draw {name} ")), "{name}");
    }
    for service in [server, database] {
        for name in service["secrets"].as_array().unwrap() {
            assert!(secrets.contains_key(name.as_str().unwrap()), "{name}");
        }
        for (name, value) in service["environment"].as_object().unwrap() {
            if let (true, Some(path)) = (name.ends_with("_FILE"), value.as_str()) {
                let secret = path.strip_prefix("/run/secrets/").unwrap();
                let given = service["secrets"].as_array().unwrap();
                assert!(given.contains(&json!(secret)), "{name}");
            }
        }
    }
    assert_eq!(database["secrets"], json!(["db-password"]));
    assert_eq!(compose["networks"]["database"]["internal"], true);
    assert_eq!(database["networks"], json!(["database"]));
    assert!(database["ports"].is_null());
    assert_eq!(server["read_only"], true);
    assert_eq!(
        server["depends_on"]["postgres"]["condition"],
        "service_healthy"
    );
}

/// The secrets that it draws are ones that the server takes.
#[test]
fn the_script_draws_secrets_that_fit() {
    let place = tempfile::tempdir().unwrap();
    let script = place.path().join("make-secrets.sh");
    fs::copy(deploy().join("compose/make-secrets.sh"), &script).unwrap();
    let drawn = |name: &str| fs::read_to_string(place.path().join("secrets").join(name)).unwrap();
    made(Command::new("/bin/sh").arg(&script));
    let (key, first) = (drawn("master-key"), drawn("bootstrap-api-key"));
    assert_eq!(key.trim().len(), 64);
    assert!(hookturn::store::seal::MasterKey::parse_list(&key).is_ok());
    assert!(first.starts_with("sk_operator_"));
    assert!(hookturn_core::workspace::check_key_text(first.trim()).is_ok());
    // What is there stays.
    made(Command::new("/bin/sh").arg(&script));
    assert_eq!(drawn("master-key"), key);
}

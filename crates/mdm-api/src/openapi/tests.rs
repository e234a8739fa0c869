//! What the document must hold, whatever routes there are.

use std::collections::BTreeSet;

use super::*;

fn operations() -> Vec<(String, String, Value)> {
    let document = document();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            all.push((method.clone(), path.clone(), operation.clone()));
        }
    }
    all
}

#[test]
fn every_route_of_the_interface_is_there() {
    let operations = operations();
    assert!(operations.len() >= 100, "{}", operations.len());
    for (method, path) in [
        ("post", "/api/v1/auth/login"),
        ("get", "/api/v1/devices"),
        ("post", "/api/v1/devices/bulk"),
        ("get", "/api/v1/command-batches/{id}"),
        ("get", "/ws"),
        ("get", "/docs"),
    ] {
        let found = operations.iter().any(|(m, p, _)| m == method && p == path);
        assert!(found, "{method} {path}");
    }
}

#[test]
fn operation_ids_are_unique_and_every_operation_says_what_it_is() {
    let operations = operations();
    let ids: BTreeSet<_> = operations
        .iter()
        .map(|(_, _, operation)| operation["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), operations.len());
    for (method, path, operation) in &operations {
        assert!(operation["summary"].as_str().is_some(), "{method} {path}");
        assert!(operation["tags"].as_array().is_some(), "{method} {path}");
    }
}

#[test]
fn every_json_body_has_an_example() {
    for (method, path, operation) in operations() {
        let mut bodies = vec![("request".to_owned(), operation["requestBody"].clone())];
        for (status, response) in operation["responses"].as_object().unwrap() {
            bodies.push((status.clone(), response.clone()));
        }
        for (what, body) in bodies {
            let media = &body["content"]["application/json"];
            if media["schema"]["$ref"].is_string() {
                assert!(
                    media["example"].is_object(),
                    "{method} {path} {what}: {}",
                    media["schema"]
                );
            }
        }
    }
}

/// Reads an example as the type that it is an example of, and writes it again: nothing may be lost.
macro_rules! same {
    ($examples:ident, $($module:ident :: { $($name:ident),+ $(,)? }),+ $(,)?) => {{
        let mut known = BTreeSet::new();
        $($(
            let given = &$examples[stringify!($name)];
            let read: mdm_proto::$module::$name = serde_json::from_value(given.clone())
                .unwrap_or_else(|error| panic!("{}: {error}", stringify!($name)));
            assert_eq!(&serde_json::to_value(&read).unwrap(), given, stringify!($name));
            known.insert(stringify!($name));
        )+)+
        known
    }};
}

#[test]
fn every_example_is_what_its_type_says() {
    let examples: Map<String, Value> = serde_json::from_str(EXAMPLES).unwrap();
    let known = same!(examples,
        auth::{LoginRequest, RecoveryCodes, RefreshRequest, SocketTicket, TokenResponse, TotpCode, TotpSecret, User},
        users::{ChangePassword, SessionList, UserAccount, UserList, CreateUser, UpdateUser, ApiKey, ApiKeyList,
            CreateApiKey, CreatedApiKey, UpdateApiKey},
        webhooks::{Webhook, WebhookList, CreateWebhook, CreatedWebhook, UpdateWebhook, WebhookDelivery,
            WebhookDeliveryList},
        devices::{EnrollRequest, Device, EnrolledDevice, UpdateDevice, DeviceList, BulkEnroll, BulkEnrolled,
            DeviceInventory, SoftwareList},
        commands::{SendCommand, Command, CommandList, OsqueryRequest, OsqueryResult, SendToMany, CommandBatch},
        groups::{CreateGroup, UpdateGroup, DeviceGroup, GroupList, AddMember, MembersAdded, PreviewGroup,
            GroupPreview},
        policies::{CreatePolicy, UpdatePolicy, Policy, PolicyList, PolicySettings, AssignToDevices, AssignToGroups,
            Assigned, AssignmentList,
            EffectivePolicies, PolicyCompliance, ComplianceSummary},
        applications::{Application, ApplicationList, UpdateApplication, InstallList, DeviceApplications},
        licenses::{LicenseStatus, PutLicense},
        enrollment::{CreateEnrollmentSecret, CreatedEnrollmentSecret, EnrollmentSecret, EnrollmentSecretList,
            UpdateEnrollmentSecret},
        device_side::{Inventory, CheckinRequest, CheckinResponse, CommandStatusReport, CommandAck, DevicePolicies},
        system::{Health, WebSocketStatus},
    );
    for name in examples.keys() {
        assert!(
            known.contains(name.as_str()) || name == "EventPage",
            "{name} is not looked at"
        );
    }
}

#[test]
fn a_path_tells_its_methods() {
    assert_eq!(allowed_methods("/api/v1/devices"), ["GET", "POST"]);
    assert_eq!(allowed_methods("/api/v1/nowhere"), Vec::<&str>::new());
}

#[test]
fn the_agent_checks_what_the_catalogue_says_that_it_checks() {
    use mdm_core::{devices::Platform, policies::catalogue::SETTINGS};
    let promised: Vec<_> = SETTINGS
        .iter()
        .filter(|setting| {
            let mut platforms = setting.platforms.iter();
            platforms.any(|(platform, how)| *platform == Platform::Linux && how.is_some())
        })
        .map(|setting| setting.name)
        .collect();
    let checks = mdm_agent::policies::linux::CHECKS;
    let checked: Vec<_> = checks.iter().map(|(name, _)| *name).collect();
    assert_eq!(checked, promised);
}

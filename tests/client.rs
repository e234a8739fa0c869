//! `mdm-client` calls every route that there is, and the server does what it asks.
//!
//! A binary of its own: which routes were called is read from the metrics of its one server.
#![cfg(test)]

#[expect(
    dead_code,
    reason = "shared with the end-to-end suite, which uses more of it"
)]
#[path = "tests/processes.rs"]
mod processes;

use std::{
    collections::BTreeSet,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
};

use futures_util::TryStreamExt;
use mdm_client::{
    Client, ClientError, DeviceChannel, EventQuery, EventStream, ListQuery, NewPackage,
    PartOfPackage, TransferError, all,
};
use mdm_proto::{
    applications::UpdateApplication,
    commands::{OsqueryRequest, SendCommand, SendToMany, Targets},
    device_side::{CheckinRequest, CommandStatusReport, Inventory},
    devices::{BulkEnroll, EnrollRequest, Software, UpdateDevice},
    enrollment::{CreateEnrollmentSecret, UpdateEnrollmentSecret},
    groups::{CreateGroup, PreviewGroup, UpdateGroup},
    patch::Patch,
    policies::{CreatePolicy, UpdatePolicy},
    users::{CreateApiKey, CreateUser, UpdateApiKey, UpdateUser},
    webhooks::{CreateWebhook, UpdateWebhook},
};
use serde_json::{Value, json};
use tempfile::tempfile;
use tokio::{fs::File, io::AsyncWriteExt};
use totp_rs::{Builder, Secret};
use uuid::Uuid;

use processes::Site;

const PASSWORD: &str = "correct horse battery";

fn page() -> ListQuery {
    ListQuery::new().limit(10)
}

fn anonymous(site: &Site) -> Client {
    Client::new(site.server.url.parse().unwrap(), None).unwrap()
}

async fn admin(site: &Site) -> Client {
    let client = anonymous(site);
    let password = site.password.clone().into();
    let signed_in = client.login("admin@mobius.local", password).await;
    client.with_token(signed_in.unwrap().token.into())
}

fn machine(uuid: &str) -> EnrollRequest {
    EnrollRequest {
        uuid: uuid.to_owned(),
        hostname: uuid.to_owned(),
        platform: "linux".to_owned(),
        ..EnrollRequest::default()
    }
}

/// `METHOD path` of all that was answered with success.
async fn called(client: &Client) -> BTreeSet<String> {
    // Itself is counted when it is answered.
    client.metrics().await.unwrap();
    let metrics = client.metrics().await.unwrap();
    let label = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("{name}=\"")).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    metrics
        .lines()
        .filter(|line| line.starts_with("mdm_http_requests_total{"))
        .filter(|line| label(line, "status").starts_with(['1', '2']))
        .map(|line| format!("{} {}", label(line, "method"), label(line, "route")))
        .collect()
}

/// `METHOD path` of all that the document has.
async fn documented(client: &Client) -> BTreeSet<String> {
    let document = client.openapi().await.unwrap();
    let mut operations = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            operations.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    operations
}

async fn use_devices(client: &Client) {
    let enrolled = client.enroll_device(&machine("one"), false).await.unwrap();
    let both = BulkEnroll {
        devices: vec![machine("two"), machine("three")],
    };
    assert_eq!(client.enroll_devices(&both).await.unwrap().enrolled, 2);
    let id = enrolled.device.id.to_string();
    let change = UpdateDevice {
        hostname: Patch::Value("first".to_owned()),
        ..UpdateDevice::default()
    };
    let changed = client.update_device("one", &change, Some(1)).await.unwrap();
    assert_eq!(changed.hostname, "first");
    let late = client.update_device("one", &change, Some(1)).await;
    assert_eq!(late.unwrap_err().status(), Some(412));
    assert_eq!(client.device(&id).await.unwrap().hostname, "first");
    let by_name = page().sort("-hostname").limit(1);
    let names: Vec<_> = all(by_name, |query| async move { client.devices(&query).await })
        .map_ok(|device| device.hostname)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(names, ["two", "three", "first"]);
    client.device_groups("one", &page()).await.unwrap();
    client.device_policies("one").await.unwrap();
    client.device_inventory("one").await.unwrap();
    client.device_software("one", &page()).await.unwrap();
    let query = EventQuery {
        types: vec!["device_status_change".to_owned()],
        ..EventQuery::default()
    };
    let events = client.device_events("one", &query).await.unwrap();
    assert_eq!(events.events.len(), 1);
    client.unenroll_device("three").await.unwrap();
}

async fn use_groups_and_policies(client: &Client) {
    let group = CreateGroup {
        name: "all".to_owned(),
        ..CreateGroup::default()
    };
    let group = client.create_group(&group).await.unwrap().id;
    let change = UpdateGroup {
        name: Patch::Value("everybody".to_owned()),
        ..UpdateGroup::default()
    };
    client.update_group(group, &change, None).await.unwrap();
    assert_eq!(client.groups(&page()).await.unwrap().total, 1);
    assert_eq!(client.group(group).await.unwrap().name, "everybody");
    let devices = ["one".to_owned(), "two".to_owned()];
    client.add_group_member(group, "one").await.unwrap();
    let added = client.add_group_members(group, &devices).await.unwrap();
    assert_eq!(added.added.len(), 1);
    assert_eq!(client.group_members(group, &page()).await.unwrap().total, 2);
    client.remove_group_member(group, "two").await.unwrap();
    let wish = PreviewGroup {
        filters: json!({ "platform": "linux" }),
    };
    assert_eq!(client.preview_group(&wish).await.unwrap().device_count, 2);

    let policy = CreatePolicy {
        name: "base".to_owned(),
        platform: Some("linux".to_owned()),
        configuration: Some(json!({ "password_min_length": 12 })),
        ..CreatePolicy::default()
    };
    let policy = client.create_policy(&policy).await.unwrap().id;
    let change = UpdatePolicy {
        description: Patch::Value("for all".to_owned()),
        ..UpdatePolicy::default()
    };
    client
        .update_policy(policy, &change, Some(1))
        .await
        .unwrap();
    assert_eq!(client.policies(&page()).await.unwrap().total, 1);
    assert_eq!(client.policy(policy).await.unwrap().version, 2);
    assert!(client.policy_settings().await.unwrap().settings.len() >= 20);
    client
        .assign_policy_to_devices(policy, &devices)
        .await
        .unwrap();
    let again = client.assign_policy_to_devices(policy, &devices[..1]).await;
    assert_eq!(again.unwrap_err().status(), Some(409));
    client
        .assign_policy_to_groups(policy, &[group])
        .await
        .unwrap();
    assert_eq!(
        client.policy_devices(policy, &page()).await.unwrap().total,
        2
    );
    assert_eq!(
        client.policy_groups(policy, &page()).await.unwrap().total,
        1
    );
    assert_eq!(
        client.group_policies(group, &page()).await.unwrap().total,
        1
    );
    let reached = client.policy_compliance(policy, &page()).await.unwrap();
    assert_eq!(reached.total, 2);
    client.compliance_summary().await.unwrap();
    client
        .unassign_policy_from_device(policy, "one")
        .await
        .unwrap();
    client
        .unassign_policy_from_group(policy, group)
        .await
        .unwrap();
    client.delete_policy(policy).await.unwrap();
    client.delete_group(group).await.unwrap();
}

async fn use_commands(client: &Client) {
    let command = SendCommand {
        command: "system_info".to_owned(),
        ..SendCommand::default()
    };
    let sent = client
        .send_command("one", &command, None, Some("k-1"))
        .await
        .unwrap();
    let again = client
        .send_command("one", &command, None, Some("k-1"))
        .await
        .unwrap();
    assert_eq!(sent.id, again.id);
    let many = SendToMany {
        command: "system_info".to_owned(),
        targets: Targets {
            filter: Some(json!({ "platform": "linux" })),
            ..Targets::default()
        },
        ..SendToMany::default()
    };
    let batch = client.send_to_many(&many).await.unwrap();
    client.command_batch(batch.id).await.unwrap();
    assert!(client.commands(&page()).await.unwrap().total >= 1);
    client.device_commands("one", &page()).await.unwrap();
    assert_eq!(client.command(sent.id).await.unwrap().status, "pending");
    assert_eq!(
        client.cancel_command(sent.id).await.unwrap().status,
        "cancelled"
    );
    let query = OsqueryRequest {
        query: "SELECT 1".to_owned(),
        timeout_seconds: Some(1),
    };
    let offline = client.query_device("one", &query).await.unwrap_err();
    assert_eq!(offline.status(), Some(409), "{offline}");
}

async fn use_accounts(site: &Site, client: &Client) {
    let wish = CreateUser {
        email: "u@example.org".to_owned(),
        name: None,
        role: Some("viewer".to_owned()),
        password: PASSWORD.to_owned(),
    };
    let user = client.create_user(&wish).await.unwrap().id;
    let change = UpdateUser {
        name: Patch::Value("U".to_owned()),
        ..UpdateUser::default()
    };
    client.update_user(user, &change, None).await.unwrap();
    assert_eq!(client.users(&page()).await.unwrap().total, 2);
    assert_eq!(client.user(user).await.unwrap().name, "U");

    let login = || async {
        let client = anonymous(site);
        let tokens = client
            .login("u@example.org", PASSWORD.to_owned().into())
            .await;
        tokens.unwrap()
    };
    let tokens = login().await;
    let other = login().await;
    let own = anonymous(site).with_token(tokens.token.into());
    assert_eq!(own.me().await.unwrap().role, "viewer");
    let sessions = own.sessions().await.unwrap().sessions;
    let ended = sessions.iter().find(|session| !session.current).unwrap().id;
    own.end_session(ended).await.unwrap();
    let ended = own.clone().with_token(other.token.into());
    assert_eq!(ended.me().await.unwrap_err().status(), Some(401));
    let (old, new) = (
        PASSWORD.to_owned().into(),
        "another good password".to_owned().into(),
    );
    own.change_password(&old, &new).await.unwrap();
    assert!(own.ws_ticket().await.unwrap().ticket.starts_with("mdmt_"));
    let secret = own.begin_totp().await.unwrap().secret;
    let totp = Builder::new().with_secret(Secret::try_from_base32(&secret).unwrap());
    let code = totp.build().unwrap().generate_current().to_string();
    let codes = own.confirm_totp(&code).await.unwrap().recovery_codes;
    let refused = own.login("u@example.org", new.clone()).await.err().unwrap();
    assert_eq!(refused.code(), Some("TOTP_REQUIRED"));
    let recovered = own.login_with("u@example.org", new, Some(codes[0].clone()));
    recovered.await.unwrap();
    own.remove_totp(&codes[1]).await.unwrap();
    let renewed = own.refresh(&tokens.refresh_token.into()).await.unwrap();
    own.with_token(renewed.token.into()).logout().await.unwrap();
    client.delete_user(user).await.unwrap();

    let wish = CreateApiKey {
        name: "reader".to_owned(),
        scopes: Some(vec!["devices:read".to_owned()]),
        ..CreateApiKey::default()
    };
    let made = client.create_api_key(&wish).await.unwrap();
    let id = made.api_key.id;
    let change = UpdateApiKey {
        name: Patch::Value("watcher".to_owned()),
        ..UpdateApiKey::default()
    };
    client.update_api_key(id, &change).await.unwrap();
    assert_eq!(client.api_keys(&page()).await.unwrap().total, 1);
    assert_eq!(client.api_key(id).await.unwrap().name, "watcher");
    let program = anonymous(site).with_api_key(made.key.into());
    program.devices(&page()).await.unwrap();
    assert_eq!(
        program.users(&page()).await.unwrap_err().status(),
        Some(403)
    );
    client.delete_api_key(id).await.unwrap();
    assert_eq!(
        program.devices(&page()).await.unwrap_err().status(),
        Some(401)
    );
}

async fn a_file(bytes: &[u8]) -> File {
    let mut file = File::from_std(tempfile().unwrap());
    file.write_all(bytes).await.unwrap();
    file
}

/// Uploads a package and fetches it again; gives the application.
async fn use_packages(client: &Client) -> Uuid {
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let wish = NewPackage {
        name: "tool".to_owned(),
        version: "1".to_owned(),
        platform: "linux".to_owned(),
        file_name: "tool.deb".to_owned(),
        ..NewPackage::default()
    };
    let sent = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&sent);
    let progress = move |bytes| seen.store(bytes, Ordering::Relaxed);
    let file = a_file(&bytes).await;
    let app = client
        .upload_application(&wish, file, progress)
        .await
        .unwrap();
    assert_eq!(app.size, 1_200_000);
    assert_eq!(sent.load(Ordering::Relaxed), 1_200_000);
    let wrong = NewPackage {
        checksum: Some("0".repeat(64)),
        ..wish.clone()
    };
    let refused = client
        .upload_application(&wrong, a_file(&bytes).await, |_| ())
        .await;
    let Err(TransferError::Call(ClientError::Problem(problem))) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(problem.status, 422);

    // The first part is here already.
    let (first, mut rest) = (&bytes[..500_000], Vec::new());
    let here = PartOfPackage::read(&mut &first[..]).await.unwrap();
    client
        .download_package(&app, here, &mut rest, |_| ())
        .await
        .unwrap();
    assert_eq!(rest, bytes[500_000..]);
    // What is here is of another package.
    let here = PartOfPackage::read(&mut &[0_u8; 9][..]).await.unwrap();
    let damaged = client.download_package(&app, here, &mut rest, |_| ()).await;
    assert!(
        matches!(damaged, Err(TransferError::Damaged { .. })),
        "{damaged:?}"
    );

    let change = UpdateApplication {
        description: Patch::Value("a tool".to_owned()),
        ..UpdateApplication::default()
    };
    client.update_application(app.id, &change).await.unwrap();
    assert_eq!(client.applications(&page()).await.unwrap().total, 1);
    let told = client.application(app.id).await.unwrap();
    assert_eq!(told.description.as_deref(), Some("a tool"));
    app.id
}

/// Makes, changes and revokes a secret with which a device joined; gives the device's client.
async fn use_secrets(site: &Site, client: &Client) -> Client {
    let wish = CreateEnrollmentSecret {
        name: "office".to_owned(),
        ..CreateEnrollmentSecret::default()
    };
    let made = client.create_enrollment_secret(&wish).await.unwrap();
    let id = made.enrollment_secret.id;
    let change = UpdateEnrollmentSecret {
        name: Patch::Value("home".to_owned()),
        ..UpdateEnrollmentSecret::default()
    };
    client.update_enrollment_secret(id, &change).await.unwrap();
    assert_eq!(client.enrollment_secrets(&page()).await.unwrap().total, 1);
    assert_eq!(client.enrollment_secret(id).await.unwrap().name, "home");

    let request = EnrollRequest {
        enrollment_secret: Some(made.secret),
        ..machine("four")
    };
    let anonymous = anonymous(site);
    let enrolled = anonymous.enroll_self(&request, false).await.unwrap();
    let device = anonymous.with_token(enrolled.device_token.into());
    client.revoke_enrollment_secret(id).await.unwrap();
    device
}

async fn use_device_side(site: &Site, client: &Client, tool: Uuid) {
    let device = use_secrets(site, client).await;
    let four = ["four".to_owned()];
    let tool_to = |intent| client.assign_application_to_devices(tool, &four, Some(intent));
    tool_to("install").await.unwrap();
    let group = CreateGroup {
        name: "tools".to_owned(),
        ..CreateGroup::default()
    };
    let group = client.create_group(&group).await.unwrap().id;
    client
        .assign_application_to_groups(tool, &[group], None)
        .await
        .unwrap();
    assert_eq!(
        client
            .application_devices(tool, &page())
            .await
            .unwrap()
            .total,
        1
    );
    assert_eq!(
        client
            .application_groups(tool, &page())
            .await
            .unwrap()
            .total,
        1
    );
    client.application_installs(tool, &page()).await.unwrap();
    assert_eq!(
        device.own_applications().await.unwrap().applications.len(),
        1
    );
    let mut size = 0;
    let count = |bytes: &[u8]| {
        size += bytes.len();
        Ok(())
    };
    device.own_package(tool, count).await.unwrap();
    assert_eq!(size, 1_200_000);

    let answer = device.check_in(&CheckinRequest::default()).await.unwrap();
    device.own_policies().await.unwrap();
    let software = Software {
        name: "vim".to_owned(),
        version: "9".to_owned(),
        source: "deb".to_owned(),
    };
    let inventory = Inventory {
        observed_at: answer.server_time,
        software: vec![software],
    };
    device.report_inventory(&inventory).await.unwrap();
    assert_eq!(
        client.device_software("four", &page()).await.unwrap().total,
        1
    );
    let command = SendCommand {
        command: "system_info".to_owned(),
        ..SendCommand::default()
    };
    let sent = client
        .send_command("four", &command, None, None)
        .await
        .unwrap();
    let report = CommandStatusReport {
        status: "completed".to_owned(),
        result: Some(json!({})),
        error: None,
    };
    device.check_in(&CheckinRequest::default()).await.unwrap();
    assert!(
        device
            .report_command(sent.id, &report)
            .await
            .unwrap()
            .accepted
    );
    let channel = DeviceChannel::connect(&device).await.unwrap();
    channel.close().await;
    client
        .unassign_application_from_device(tool, "four")
        .await
        .unwrap();
    device.unenroll_self().await.unwrap();

    client
        .unassign_application_from_group(tool, group)
        .await
        .unwrap();
}

#[tokio::test]
async fn every_route_is_covered_by_the_client() {
    let site = Site::start().await;
    let client = admin(&site).await;
    use_devices(&client).await;
    use_groups_and_policies(&client).await;
    use_commands(&client).await;
    use_accounts(&site, &client).await;
    let tool = use_packages(&client).await;
    use_device_side(&site, &client, tool).await;
    client.delete_application(tool).await.unwrap();

    let query = EventQuery {
        limit: Some(1),
        ..EventQuery::default()
    };
    let oldest = client.events(&query).await.unwrap();
    let oldest: Value = serde_json::from_str(oldest.events[0].get()).unwrap();
    let after = oldest["id"].as_str().unwrap();
    let mut stream = EventStream::connect(&client, Some(after), &["policy_changed"])
        .await
        .unwrap();
    while stream.next().await.unwrap().kind != "policy_changed" {}
    let status = client.license_status().await.unwrap();
    assert_eq!(client.set_license(None).await.unwrap(), status);
    webhooks(&client).await;
    let anonymous = anonymous(&site);
    anonymous.health().await.unwrap();
    anonymous.live().await.unwrap();
    anonymous.ready().await.unwrap();
    anonymous.jwks().await.unwrap();
    client.websocket_status().await.unwrap();

    every_event_is_typed(&client).await;

    let mut missing = documented(&client).await;
    let called = called(&client).await;
    missing.retain(|operation| !called.contains(operation));
    let expected = [
        // The same as a `GET`, for probes.
        "HEAD /api/v1/health",
        "HEAD /health",
        "HEAD /livez",
        "HEAD /readyz",
        // The same as others, at another place.
        "GET /api/v1/health",
        "GET /api/v1/metrics",
        "GET /ws",
        "POST /api/v1/applications/{id}/devices/{device}",
        "POST /api/v1/applications/{id}/groups/{group}",
        "POST /api/v1/device-groups/{id}/devices/{device}",
        "POST /api/v1/policies/{id}/devices/{device}",
        "POST /api/v1/policies/{id}/groups/{group}",
        // For browsers.
        "GET /api/v1/events/stream",
        "GET /docs",
        // Called above, of a device that is offline; the end-to-end suite has one that answers.
        "POST /api/v1/devices/{device}/osquery",
        // Called above, of a message that is in no log; the server's own tests have a receiver.
        "POST /api/v1/webhooks/{id}/deliveries/{delivery}/replay",
    ];
    assert_eq!(missing, expected.map(str::to_owned).into());
}

async fn webhooks(client: &Client) {
    let wish = CreateWebhook {
        name: "hook".to_owned(),
        url: "https://hooks.invalid/".to_owned(),
        event_types: vec!["license_changed".to_owned()],
        ..CreateWebhook::default()
    };
    let made = client.create_webhook(&wish).await.unwrap();
    assert!(made.secret.starts_with("whsec_"));
    let id = made.webhook.id;
    let change = UpdateWebhook {
        enabled: Patch::Value(false),
        ..UpdateWebhook::default()
    };
    let changed = client.update_webhook(id, &change, Some(1)).await.unwrap();
    // Its place in the log moves on by itself.
    let read = client.webhook(id).await.unwrap();
    assert_eq!((read.version, read.enabled), (changed.version, false));
    assert_eq!(client.webhooks(&page()).await.unwrap().total, 1);
    // Names that end in "invalid" lead nowhere (RFC 6761, section 6.4).
    let tested = client.test_webhook(id).await.unwrap();
    assert!(!tested.delivered && tested.error.is_some());
    let deliveries = client.webhook_deliveries(id, &page()).await.unwrap();
    assert_eq!(deliveries.deliveries, std::slice::from_ref(&tested));
    let refused = client.replay_webhook_delivery(id, tested.id).await;
    assert_eq!(refused.unwrap_err().code(), Some("EVENT_GONE"));
    client.delete_webhook(id).await.unwrap();
}

/// Whatever happened here, the client knows its type and fields.
async fn every_event_is_typed(client: &Client) {
    let query = EventQuery {
        limit: Some(500),
        ..EventQuery::default()
    };
    let page = client.events(&query).await.unwrap();
    assert!(page.events.len() > 20);
    for event in page.events {
        let frame: mdm_proto::events::Frame = serde_json::from_str(event.get()).unwrap();
        assert!(frame.event().is_some(), "{frame:?}");
    }
}

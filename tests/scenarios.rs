//! The 35 scenarios that the older platform claimed, against the real server, a real database and,
//! where a device must answer, the real agent. Every one of the WebSocket asserts what a WebSocket
//! client received.
//!
//! Alone: `cargo test -p mdm-e2e --test scenarios`
#![cfg(test)]

#[expect(
    dead_code,
    reason = "shared with the end-to-end suite, which uses more of it"
)]
#[path = "tests/events.rs"]
mod events;
#[expect(
    dead_code,
    reason = "shared with the end-to-end suite, which uses more of it"
)]
#[path = "tests/processes.rs"]
mod processes;

use mdm_testkit::TestDatabase;
use serde_json::{Value, json};

use events::Watcher;
use processes::{Agent, Site};

/// A server with a database of its own.
struct Scene {
    site: Site,
    _database: TestDatabase,
}

impl Scene {
    async fn start() -> Self {
        let database = TestDatabase::create().await;
        let site = Site::start_with(&[("MDM_DATABASE_URL", database.url())]).await;
        Self {
            site,
            _database: database,
        }
    }

    async fn call(&self, method: &'static str, path: &str, body: Option<Value>) -> (u16, Value) {
        let path = format!("/api/v1{path}");
        self.site
            .server
            .call(method, &path, &self.site.token, body)
            .await
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call("POST", path, Some(body)).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    async fn device(&self, uuid: &str, platform: &str) -> Value {
        let body = json!({ "uuid": uuid, "hostname": format!("host-{uuid}"), "platform": platform, "os_version": "12" });
        self.post("/devices", body).await
    }

    async fn group(&self, name: &str) -> String {
        id(&self.post("/device-groups", json!({ "name": name })).await)
    }

    async fn policy(&self, name: &str) -> String {
        let body = json!({ "name": name, "platform": "linux", "configuration": { "password_min_length": 12 } });
        id(&self.post("/policies", body).await)
    }

    /// A running agent on this machine, online.
    async fn agent(&self, uuid: &str) -> Agent {
        let mut agent = self.site.agent(uuid).await;
        agent.run();
        self.site
            .server
            .wait_for_status(uuid, "online", &self.site.token)
            .await;
        agent
    }

    async fn watcher(&self) -> Watcher {
        Watcher::connect(&self.site.server.url, &self.site.token, None)
            .await
            .unwrap()
    }
}

fn id(object: &Value) -> String {
    object["id"]
        .as_str()
        .unwrap_or_else(|| panic!("no id in {object}"))
        .to_owned()
}

mod authentication {
    use super::*;

    #[tokio::test]
    async fn a_user_signs_in_with_the_right_password_and_gets_a_token_that_works() {
        let scene = Scene::start().await;
        let body = json!({ "email": "admin@mobius.local", "password": scene.site.password });
        let answer = scene.post("/auth/login", body).await;
        assert_eq!(answer["user"]["role"], "admin");
        let token = answer["token"].as_str().unwrap();
        assert_eq!(token.split('.').count(), 3, "not a JWT");
        let devices = scene.site.server.get("/api/v1/devices", token).await;
        assert_eq!(devices["total"], 0);
    }

    #[tokio::test]
    async fn a_wrong_password_is_refused_and_says_nothing_of_the_user() {
        let scene = Scene::start().await;
        for name in ["admin", "nobody"] {
            let body = json!({ "username": name, "password": "wrong" });
            let (status, problem) = scene.call("POST", "/auth/login", Some(body)).await;
            assert_eq!(
                (status, &problem["code"]),
                (401, &json!("WRONG_CREDENTIALS"))
            );
        }
    }

    #[tokio::test]
    async fn without_a_good_token_nothing_is_shown() {
        let scene = Scene::start().await;
        for token in [
            "",
            "garbage",
            "mobius-token-admin",
            "eyJhbGciOiJub25lIn0.e30.",
        ] {
            let (status, _) = scene
                .site
                .server
                .call("GET", "/api/v1/devices", token, None)
                .await;
            assert_eq!(status, 401, "{token:?}");
        }
    }

    #[tokio::test]
    async fn after_logout_the_token_is_dead_and_a_refresh_token_works_once() {
        let scene = Scene::start().await;
        let login = json!({ "username": "admin", "password": scene.site.password });
        let signed_in = scene.post("/auth/login", login).await;
        let refresh = json!({ "refresh_token": signed_in["refresh_token"] });
        let renewed = scene.post("/auth/refresh", refresh.clone()).await;
        let token = renewed["token"].as_str().unwrap();
        let (status, _) = scene
            .site
            .server
            .call("POST", "/api/v1/auth/logout", token, None)
            .await;
        assert_eq!(status, 204);
        let (status, _) = scene
            .site
            .server
            .call("GET", "/api/v1/devices", token, None)
            .await;
        assert_eq!(status, 401);
        let (status, _) = scene.call("POST", "/auth/refresh", Some(refresh)).await;
        assert_eq!(status, 401);
    }
}

mod devices {
    use super::*;

    #[tokio::test]
    async fn a_device_enrols_with_a_secret_and_is_listed() {
        let scene = Scene::start().await;
        let secret = scene
            .post(
                "/enrollment-secrets",
                json!({ "name": "s", "labels": { "site": "a" } }),
            )
            .await;
        let body = json!({ "uuid": "u-1", "hostname": "h", "platform": "macos", "enrollment_secret": secret["secret"] });
        let device = scene.post("/device/enroll", body).await;
        assert!(device["device_token"].is_string());
        let listed = scene.get("/devices").await;
        assert_eq!(
            (&listed["total"], &listed["devices"][0]["labels"]["site"]),
            (&json!(1), &json!("a"))
        );
    }

    #[tokio::test]
    async fn the_same_hardware_is_not_enrolled_twice() {
        let scene = Scene::start().await;
        scene.device("u-1", "linux").await;
        let body = json!({ "uuid": "u-1", "hostname": "h", "platform": "linux" });
        let (status, problem) = scene.call("POST", "/devices", Some(body)).await;
        assert_eq!(
            (status, &problem["code"]),
            (409, &json!("DEVICE_ALREADY_ENROLLED"))
        );
        assert_eq!(scene.get("/devices").await["total"], 1);
    }

    #[tokio::test]
    async fn devices_are_found_by_platform_status_and_a_part_of_their_name() {
        let scene = Scene::start().await;
        for (uuid, platform) in [("web-1", "linux"), ("web-2", "windows"), ("db-1", "linux")] {
            scene.device(uuid, platform).await;
        }
        for (query, total) in [
            ("platform=linux", 2),
            ("search=WEB", 2),
            ("platform=linux&search=web", 1),
            ("status=online", 0),
        ] {
            assert_eq!(
                scene.get(&format!("/devices?{query}")).await["total"],
                total,
                "{query}"
            );
        }
    }

    #[tokio::test]
    async fn a_device_is_read_changed_and_unenrolled() {
        let scene = Scene::start().await;
        let device = scene.device("u-1", "linux").await;
        let path = format!("/devices/{}", id(&device));
        let change = json!({ "hostname": "renamed", "labels": { "a": "b" } });
        let (status, changed) = scene.call("PUT", &path, Some(change)).await;
        assert_eq!((status, &changed["hostname"]), (200, &json!("renamed")));
        assert_eq!(scene.get(&path).await["labels"], json!({ "a": "b" }));
        assert_eq!(scene.call("DELETE", &path, None).await.0, 204);
        assert_eq!(scene.get(&path).await["status"], "unenrolled");
        let token = device["device_token"].as_str().unwrap();
        let (status, _) = scene
            .site
            .server
            .call("POST", "/api/v1/device/checkin", token, Some(json!({})))
            .await;
        assert_eq!(status, 401);
    }

    #[tokio::test]
    async fn a_real_machine_comes_online_and_tells_what_it_is_and_what_is_installed() {
        let scene = Scene::start().await;
        let _agent = scene.agent("this-machine").await;
        let nodename = rustix::system::uname()
            .nodename()
            .to_str()
            .unwrap()
            .to_owned();
        let told = mdm_testkit::wait_until(
            "the inventory",
            std::time::Duration::from_secs(30),
            async || {
                let inventory = scene.get("/devices/this-machine/inventory").await;
                (inventory["system_info"]["hostname"] == nodename).then_some(inventory)
            },
        )
        .await;
        assert!(told["observed_at"].is_string());
        mdm_testkit::wait_until(
            "the software",
            std::time::Duration::from_secs(30),
            async || {
                let software = scene
                    .get("/devices/this-machine/software?search=libc")
                    .await;
                (software["total"].as_i64()? > 0).then_some(())
            },
        )
        .await;
    }

    #[tokio::test]
    async fn a_command_is_carried_out_by_the_device_and_not_by_the_server() {
        let scene = Scene::start().await;
        let mut agent = scene.agent("this-machine").await;
        let command = scene
            .site
            .send("this-machine", json!({ "command": "system_info" }))
            .await;
        assert_eq!(command["status"], "completed");
        let kernel = rustix::system::uname()
            .release()
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(command["result"]["kernel"], kernel);
        agent.stop();
        scene
            .site
            .server
            .wait_for_status("this-machine", "offline", &scene.site.token)
            .await;
        let path = "/devices/this-machine/commands?wait=1";
        let waiting = scene.post(path, json!({ "command": "system_info" })).await;
        assert_eq!(waiting["status"], "pending");
    }

    #[tokio::test]
    async fn a_query_gives_rows_of_the_device_and_an_error_of_the_device() {
        let scene = Scene::start().await;
        let _agent = scene.agent("this-machine").await;
        let query = json!({ "query": "SELECT pid FROM processes WHERE pid = 1" });
        let answer = scene.post("/devices/this-machine/osquery", query).await;
        assert_eq!(answer["rows"], json!([{ "pid": 1 }]));
        let wrong = json!({ "query": "SELECT nonsense FROM nowhere" });
        let (status, problem) = scene
            .call("POST", "/devices/this-machine/osquery", Some(wrong))
            .await;
        assert_eq!(status, 422);
        assert!(
            problem["detail"].as_str().unwrap().contains("nowhere"),
            "{problem}"
        );
    }

    #[tokio::test]
    async fn invalid_and_missing_devices_get_clear_answers() {
        let scene = Scene::start().await;
        let body = json!({ "uuid": "u", "hostname": "", "platform": "linux" });
        let (status, problem) = scene.call("POST", "/devices", Some(body)).await;
        assert_eq!(
            (status, &problem["errors"][0]["pointer"]),
            (422, &json!("/hostname"))
        );
        let (status, problem) = scene.call("GET", "/devices/nobody", None).await;
        assert_eq!(
            (status, &problem["code"]),
            (404, &json!("DEVICE_NOT_FOUND"))
        );
        let (status, _) = scene
            .call(
                "POST",
                "/devices/nobody/commands",
                Some(json!({ "command": "lock" })),
            )
            .await;
        assert_eq!(status, 404);
    }
}

mod policies {
    use super::*;

    #[tokio::test]
    async fn a_policy_is_made_with_a_platform_and_a_configuration() {
        let scene = Scene::start().await;
        let body = json!({ "name": "p", "platform": "windows", "configuration": { "defender_enabled": true } });
        let policy = scene.post("/policies", body).await;
        assert_eq!(
            (&policy["version"], &policy["enabled"]),
            (&json!(1), &json!(true))
        );
        assert_eq!(
            scene.get(&format!("/policies/{}", id(&policy))).await,
            policy
        );
    }

    #[tokio::test]
    async fn a_policy_of_the_older_kind_is_made_with_type_and_rules() {
        let scene = Scene::start().await;
        let body =
            json!({ "name": "p", "type": "password", "rules": { "password_min_length": 8 } });
        let policy = scene.post("/policies", body).await;
        assert_eq!(
            (&policy["type"], &policy["platform"]),
            (&json!("password"), &json!("all"))
        );
        assert_eq!(policy["configuration"], json!({ "password_min_length": 8 }));
    }

    #[tokio::test]
    async fn policies_are_listed_by_platform_and_name() {
        let scene = Scene::start().await;
        scene.policy("first").await;
        scene.policy("second").await;
        assert_eq!(scene.get("/policies").await["total"], 2);
        assert_eq!(scene.get("/policies?search=FIRST").await["total"], 1);
        assert_eq!(scene.get("/policies?platform=ios").await["total"], 0);
    }

    #[tokio::test]
    async fn a_policy_is_changed_and_counts_its_versions() {
        let scene = Scene::start().await;
        let path = format!("/policies/{}", scene.policy("p").await);
        let (status, changed) = scene
            .call("PUT", &path, Some(json!({ "enabled": false })))
            .await;
        assert_eq!(
            (status, &changed["version"], &changed["enabled"]),
            (200, &json!(2), &json!(false))
        );
        assert_eq!(scene.get(&path).await["name"], "p");
    }

    #[tokio::test]
    async fn a_deleted_policy_is_gone_from_its_devices() {
        let scene = Scene::start().await;
        scene.device("u-1", "linux").await;
        let policy = scene.policy("p").await;
        scene
            .post(
                &format!("/policies/{policy}/devices"),
                json!({ "device_id": "u-1" }),
            )
            .await;
        assert_eq!(
            scene
                .call("DELETE", &format!("/policies/{policy}"), None)
                .await
                .0,
            204
        );
        assert_eq!(
            scene
                .call("GET", &format!("/policies/{policy}"), None)
                .await
                .0,
            404
        );
        assert_eq!(scene.get("/devices/u-1/policies").await["total"], 0);
    }

    #[tokio::test]
    async fn an_unknown_setting_is_refused_and_pointed_at() {
        let scene = Scene::start().await;
        let body = json!({ "name": "p", "configuration": { "password_min_lenght": 8 } });
        let (status, problem) = scene.call("POST", "/policies", Some(body)).await;
        assert_eq!(status, 422);
        assert_eq!(
            problem["errors"][0]["pointer"],
            "/configuration/password_min_lenght"
        );
        assert_eq!(scene.get("/policies").await["total"], 0);
    }
}

mod groups {
    use super::*;

    #[tokio::test]
    async fn a_group_is_made_and_listed() {
        let scene = Scene::start().await;
        let group = scene.group("Servers").await;
        let listed = scene.get("/device-groups").await;
        assert_eq!(listed["device_groups"][0]["id"], json!(group));
        assert_eq!(listed["device_groups"][0]["device_count"], 0);
    }

    #[tokio::test]
    async fn a_group_is_renamed_and_deleted() {
        let scene = Scene::start().await;
        let path = format!("/device-groups/{}", scene.group("g").await);
        let (status, changed) = scene.call("PUT", &path, Some(json!({ "name": "h" }))).await;
        assert_eq!((status, &changed["name"]), (200, &json!("h")));
        assert_eq!(scene.call("DELETE", &path, None).await.0, 204);
        assert_eq!(scene.call("GET", &path, None).await.0, 404);
    }

    #[tokio::test]
    async fn a_device_enters_by_body_or_by_path_and_is_counted() {
        let scene = Scene::start().await;
        let first = scene.device("u-1", "linux").await;
        scene.device("u-2", "linux").await;
        let group = scene.group("g").await;
        let members = format!("/device-groups/{group}/devices");
        scene
            .post(&members, json!({ "device_id": first["id"] }))
            .await;
        assert_eq!(
            scene.call("POST", &format!("{members}/u-2"), None).await.0,
            201
        );
        assert_eq!(
            scene.get(&format!("/device-groups/{group}")).await["device_count"],
            2
        );
        assert_eq!(scene.get(&members).await["total"], 2);
    }

    #[tokio::test]
    async fn a_device_leaves_a_group() {
        let scene = Scene::start().await;
        scene.device("u-1", "linux").await;
        let members = format!("/device-groups/{}/devices", scene.group("g").await);
        scene.post(&members, json!({ "device_id": "u-1" })).await;
        assert_eq!(
            scene
                .call("DELETE", &format!("{members}/u-1"), None)
                .await
                .0,
            204
        );
        assert_eq!(scene.get(&members).await["total"], 0);
        assert_eq!(
            scene
                .call("DELETE", &format!("{members}/u-1"), None)
                .await
                .0,
            404
        );
    }

    #[tokio::test]
    async fn adding_a_device_twice_is_a_conflict() {
        let scene = Scene::start().await;
        scene.device("u-1", "linux").await;
        let members = format!("/device-groups/{}/devices", scene.group("g").await);
        scene.post(&members, json!({ "device_id": "u-1" })).await;
        let (status, problem) = scene
            .call("POST", &members, Some(json!({ "device_id": "u-1" })))
            .await;
        assert_eq!((status, &problem["code"]), (409, &json!("ALREADY_MEMBER")));
    }

    #[tokio::test]
    async fn a_group_with_filters_gathers_its_devices_by_itself() {
        let scene = Scene::start().await;
        scene.device("u-1", "linux").await;
        let body = json!({ "name": "g", "filters": { "platform": "linux" } });
        let group = id(&scene.post("/device-groups", body).await);
        scene.device("u-2", "linux").await;
        scene.device("u-3", "windows").await;
        assert_eq!(
            scene.get(&format!("/device-groups/{group}")).await["device_count"],
            2
        );
    }
}

mod policy_assignment {
    use super::*;

    #[tokio::test]
    async fn a_policy_is_assigned_to_a_device_by_body_or_by_path() {
        let scene = Scene::start().await;
        let first = scene.device("u-1", "linux").await;
        scene.device("u-2", "linux").await;
        let devices = format!("/policies/{}/devices", scene.policy("p").await);
        scene
            .post(&devices, json!({ "device_id": first["id"] }))
            .await;
        assert_eq!(
            scene.call("POST", &format!("{devices}/u-2"), None).await.0,
            201
        );
        assert_eq!(scene.get(&devices).await["total"], 2);
        assert_eq!(
            scene.call("POST", &format!("{devices}/u-2"), None).await.0,
            409
        );
    }

    #[tokio::test]
    async fn a_policy_reaches_devices_through_their_group() {
        let scene = Scene::start().await;
        scene.device("u-1", "linux").await;
        let (policy, group) = (scene.policy("p").await, scene.group("g").await);
        scene
            .post(
                &format!("/policies/{policy}/groups"),
                json!({ "group_id": group }),
            )
            .await;
        scene
            .post(
                &format!("/device-groups/{group}/devices"),
                json!({ "device_id": "u-1" }),
            )
            .await;
        let effective = scene.get("/devices/u-1/policies").await;
        assert_eq!(
            effective["policies"][0]["paths"][0]["group_id"],
            json!(group)
        );
    }

    #[tokio::test]
    async fn a_policy_is_taken_away() {
        let scene = Scene::start().await;
        scene.device("u-1", "linux").await;
        let (policy, group) = (scene.policy("p").await, scene.group("g").await);
        for (targets, body, target) in [
            ("devices", json!({ "device_id": "u-1" }), "u-1"),
            ("groups", json!({ "group_id": group }), group.as_str()),
        ] {
            let path = format!("/policies/{policy}/{targets}");
            scene.post(&path, body).await;
            assert_eq!(
                scene
                    .call("DELETE", &format!("{path}/{target}"), None)
                    .await
                    .0,
                204
            );
            assert_eq!(scene.get(&path).await["total"], 0);
            assert_eq!(
                scene
                    .call("DELETE", &format!("{path}/{target}"), None)
                    .await
                    .0,
                404
            );
        }
    }

    #[tokio::test]
    async fn the_device_itself_looks_and_its_word_is_the_compliance() {
        let scene = Scene::start().await;
        let _agent = scene.agent("this-machine").await;
        let kernel = rustix::system::uname()
            .release()
            .to_str()
            .unwrap()
            .to_owned();
        let check = |name: &str, version: &str| json!({ "name": name, "query": format!("SELECT 1 FROM kernel_info WHERE version = '{version}'") });
        let met = json!({ "name": "met", "configuration": { "uptime_days_max": 3650, "checks": [check("kernel", &kernel)] } });
        let not_met =
            json!({ "name": "not met", "configuration": { "checks": [check("kernel", "1.0")] } });
        for (body, state) in [(met, "compliant"), (not_met, "non_compliant")] {
            let policy = id(&scene.post("/policies", body).await);
            scene
                .post(
                    &format!("/policies/{policy}/devices"),
                    json!({ "device_id": "this-machine" }),
                )
                .await;
            let found =
                mdm_testkit::wait_until(state, std::time::Duration::from_secs(30), async || {
                    let found = scene.get(&format!("/policies/{policy}/compliance")).await;
                    (found["devices"][0]["state"] == state).then_some(found)
                })
                .await;
            assert_eq!(found["counts"][state], 1);
            assert!(found["devices"][0]["observed_at"].is_string());
        }
        let effective = scene.get("/devices/this-machine/policies").await;
        assert_eq!(effective["compliance"], "non_compliant");
    }
}

mod license_and_applications {
    use super::*;

    #[tokio::test]
    async fn the_license_counts_devices_and_an_application_is_installed_by_the_device_itself() {
        let scene = Scene::start().await;
        let status = scene.get("/license/status").await;
        assert_eq!(
            (
                &status["tier"],
                &status["device_limit"],
                &status["devices_enrolled"]
            ),
            (&json!("community"), &Value::Null, &json!(0))
        );
        // An agent that is not allowed to install says so: its word is the state, nothing else is.
        let _agent = scene.agent("this-machine").await;
        assert_eq!(scene.get("/license/status").await["devices_enrolled"], 1);
        let part = reqwest::multipart::Part::bytes(b"not really a package".to_vec())
            .file_name("editor.deb");
        let form = reqwest::multipart::Form::new()
            .text("name", "Editor")
            .text("version", "1.0")
            .text("platform", "linux")
            .part("package", part);
        let client = mdm_client::http_client(std::time::Duration::from_secs(30)).unwrap();
        let uploaded = client
            .post(format!("{}/api/v1/applications", scene.site.server.url))
            .bearer_auth(&scene.site.token)
            .multipart(form)
            .send()
            .await
            .unwrap();
        assert_eq!(uploaded.status(), 201);
        let application: Value = serde_json::from_str(&uploaded.text().await.unwrap()).unwrap();
        let path = format!("/applications/{}", id(&application));
        assert_eq!(scene.get("/applications").await["total"], 1);
        scene
            .post(
                &format!("{path}/devices"),
                json!({ "device_id": "this-machine" }),
            )
            .await;
        let installs = mdm_testkit::wait_until(
            "the device's word",
            std::time::Duration::from_secs(30),
            async || {
                let installs = scene.get(&format!("{path}/installs")).await;
                (installs["installs"][0]["state"] == "failed").then_some(installs)
            },
        )
        .await;
        let error = installs["installs"][0]["error"].as_str().unwrap();
        assert!(error.contains("--allow install_app"), "{error}");
        assert_eq!(scene.call("DELETE", &path, None).await.0, 409);
    }
}

mod websocket {
    use super::*;

    #[tokio::test]
    async fn without_a_good_token_nobody_connects_and_with_one_a_welcome_comes() {
        let scene = Scene::start().await;
        for token in ["", "garbage"] {
            assert!(
                Watcher::connect(&scene.site.server.url, token, None)
                    .await
                    .is_err()
            );
        }
        let watcher = scene.watcher().await;
        assert!(watcher.welcome["data"]["connection_id"].is_string());
        let status = scene.get("/websocket/status").await;
        assert_eq!(
            (&status["status"], &status["connected_clients"]),
            (&json!("running"), &json!(1))
        );
    }

    #[tokio::test]
    async fn the_status_of_a_device_is_told_as_it_changes() {
        let scene = Scene::start().await;
        let mut watcher = scene.watcher().await;
        let mut agent = scene.agent("this-machine").await;
        for (old, new) in [("", "enrolled"), ("enrolled", "online")] {
            watcher
                .until(new, |event| {
                    event["type"] == "device_status_change"
                        && event["data"]["old_status"] == old
                        && event["data"]["new_status"] == new
                })
                .await;
        }
        agent.stop();
        let gone = watcher
            .until("offline", |event| event["data"]["new_status"] == "offline")
            .await;
        assert_eq!(gone["data"]["old_status"], "online");
    }

    #[tokio::test]
    async fn the_assignment_of_a_policy_is_told() {
        let scene = Scene::start().await;
        let device = scene.device("u-1", "linux").await;
        let policy = scene.policy("p").await;
        let mut watcher = scene.watcher().await;
        let path = format!("/policies/{policy}/devices");
        scene.post(&path, json!({ "device_id": "u-1" })).await;
        scene.call("DELETE", &format!("{path}/u-1"), None).await;
        for action in ["assigned", "unassigned"] {
            let told = watcher
                .until(action, |event| event["type"] == "policy_assignment")
                .await;
            let expected =
                json!({ "policy_id": policy, "device_id": device["id"], "action": action });
            assert_eq!(told["data"], expected);
        }
    }

    #[tokio::test]
    async fn the_execution_of_a_command_is_told_step_by_step_as_the_device_reports() {
        let scene = Scene::start().await;
        let _agent = scene.agent("this-machine").await;
        let mut watcher = scene.watcher().await;
        let command = scene
            .site
            .send("this-machine", json!({ "command": "collect_logs" }))
            .await;
        for status in ["pending", "sent", "completed"] {
            let told = watcher
                .until(status, |event| {
                    event["type"] == "command_execution"
                        && event["data"]["command_id"] == command["id"]
                        && event["data"]["status"] == status
                })
                .await;
            assert_eq!(told["data"]["command"], "collect_logs");
        }
    }

    #[tokio::test]
    async fn the_membership_of_a_group_is_told_by_hand_and_by_filter() {
        let scene = Scene::start().await;
        let device = scene.device("u-1", "linux").await;
        let by_hand = scene.group("g").await;
        let mut watcher = scene.watcher().await;
        scene
            .post(
                &format!("/device-groups/{by_hand}/devices"),
                json!({ "device_id": "u-1" }),
            )
            .await;
        let filters = json!({ "name": "f", "filters": { "platform": "linux" } });
        let by_filter = id(&scene.post("/device-groups", filters).await);
        for (group, source) in [(by_hand, "manual"), (by_filter, "filter")] {
            let told = watcher
                .until(source, |event| event["type"] == "group_membership")
                .await;
            let expected = json!({ "group_id": group, "device_id": device["id"], "action": "added", "source": source });
            assert_eq!(told["data"], expected);
        }
    }

    #[tokio::test]
    async fn every_client_sees_every_event_once_in_one_order_and_resumes_where_it_was() {
        let scene = Scene::start().await;
        let mut watchers = Vec::new();
        for _ in 0..8 {
            watchers.push(scene.watcher().await);
        }
        for number in 0..10 {
            scene.device(&format!("u-{number}"), "linux").await;
        }
        let mut orders = Vec::new();
        for watcher in &mut watchers {
            while watcher.seen.len() < 10 {
                watcher.next().await.unwrap();
            }
            orders.push(events::ids(&watcher.seen));
        }
        assert!(orders.windows(2).all(|pair| pair[0] == pair[1]));
        let mut resumed = Watcher::connect(
            &scene.site.server.url,
            &scene.site.token,
            Some(&orders[0][3]),
        )
        .await
        .unwrap();
        while resumed.seen.len() < 6 {
            resumed.next().await.unwrap();
        }
        assert_eq!(events::ids(&resumed.seen), orders[0][4..]);
    }
}

//! A server of the test's own, and the calls that tests make of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix_web::web::Data;
use mdm_api::{config, server::Application, state::AppState};
use mdm_core::{Clock, SystemClock, clock::FrozenClock, ids::SessionId, roles::Role};
use mdm_service::{sealing::SecretKey, tokens::AccessTokens};
use mdm_testkit::TestDatabase;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub const PASSWORD: &str = "correct horse battery";

/// A running server; stops with the test.
pub struct TestApp {
    pub url: String,
    pub database: TestDatabase,
    pub client: reqwest::Client,
    stop: CancellationToken,
    data_dir: TempDir,
    state: Data<AppState>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Asserts the status, and for an error the problem body, and gives the JSON.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }

    /// Asserts a problem with this status and code, complete as RFC 9457 and the API have it.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["error"], problem["title"]);
        assert_eq!(problem["request_id"], self.headers["x-request-id"].as_str());
        problem
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl TestApp {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(more: &[(&str, &str)]) -> Self {
        let database = TestDatabase::create().await;
        let data_dir = tempfile::tempdir().unwrap();
        let mut variables = vec![
            ("MDM_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
            (
                "MDM_DATA_DIR".to_owned(),
                data_dir.path().display().to_string(),
            ),
            ("MDM_DATABASE_URL".to_owned(), database.url().to_owned()),
            ("MDM_ADMIN_PASSWORD".to_owned(), PASSWORD.to_owned()),
            ("MDM_WORKERS".to_owned(), "2".to_owned()),
        ];
        variables.extend(
            more.iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
        );
        let settings = config::load(None, variables.into_iter(), Vec::new())
            .unwrap()
            .settings;
        let application = Application::build(settings).await.unwrap();
        let state = application.state().clone();
        let url = application.url().to_owned();
        let stop = CancellationToken::new();
        actix_web::rt::spawn(application.run(stop.clone()));
        let client = mdm_client::http_client(Duration::from_secs(30)).unwrap();
        Self {
            url,
            database,
            client,
            stop,
            data_dir,
            state,
        }
    }

    /// As `mdm-api try` does.
    pub fn show_examples(&self) {
        self.state.show_examples();
    }

    pub fn data_dir(&self) -> &std::path::Path {
        self.data_dir.path()
    }

    pub async fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Answer {
        let mut request = self.request(method, path);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        Self::read(request).await
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.url);
        self.client.request(method.parse().unwrap(), url)
    }

    pub async fn read(request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let headers = response
            .headers()
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_str().unwrap().to_owned()))
            .collect();
        Answer {
            status: response.status().as_u16(),
            headers,
            text: response.text().await.unwrap(),
        }
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.call("GET", path, Some(token), None).await
    }

    pub async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.call("POST", path, Some(token), Some(body)).await
    }

    pub async fn login(&self) -> Value {
        let body = json!({ "email": "admin@mobius.local", "password": PASSWORD });
        self.call("POST", "/api/v1/auth/login", None, Some(body))
            .await
            .expect(200)
    }

    /// An access token of the first administrator.
    pub async fn admin(&self) -> String {
        self.login().await["token"].as_str().unwrap().to_owned()
    }

    /// An access token of another user, made straight in the database: the API for users comes
    /// with a later version.
    pub async fn user(&self, email: &str, role: &str) -> String {
        sqlx::query(
            "INSERT INTO users (organization_id, id, email, name, role, password_hash, created_at, updated_at)
             SELECT organization_id, gen_random_uuid(), $1, 'a ' || $2, $2, password_hash, now(), now()
               FROM users WHERE email = 'admin@mobius.local'",
        )
        .bind(email)
        .bind(role)
        .execute(self.database.pool())
        .await
        .unwrap();
        self.token_of(email).await
    }

    /// An access token of an administrator of another organisation.
    pub async fn stranger(&self) -> String {
        sqlx::query(
            "WITH other AS (INSERT INTO organizations VALUES (gen_random_uuid(), 'other', now()) RETURNING id)
             INSERT INTO users (organization_id, id, email, name, role, password_hash, created_at, updated_at)
             SELECT other.id, gen_random_uuid(), 'stranger@other.local', 'stranger', 'admin', password_hash, now(), now()
               FROM users, other WHERE email = 'admin@mobius.local'",
        )
        .execute(self.database.pool())
        .await
        .unwrap();
        self.token_of("stranger@other.local").await
    }

    async fn token_of(&self, email: &str) -> String {
        let body = json!({ "email": email, "password": PASSWORD });
        let answer = self
            .call("POST", "/api/v1/auth/login", None, Some(body))
            .await
            .expect(200);
        answer["token"].as_str().unwrap().to_owned()
    }

    /// A token of the same user, made an hour ago: well signed, and of no use any more.
    pub async fn expired_token(&self, token: &str) -> String {
        let me = self.get("/api/v1/auth/me", token).await.expect(200);
        let status = self.get("/api/v1/license/status", token).await.expect(200);
        let key = std::fs::read_to_string(self.data_dir().join("secret.key")).unwrap();
        let key: [u8; 32] = hex::decode(key.trim()).unwrap().try_into().unwrap();
        let an_hour_ago = FrozenClock::new(SystemClock.now() - chrono::Duration::hours(1));
        let tokens = AccessTokens::load(
            self.database.pool().clone(),
            Arc::new(SecretKey::new(&key)),
            Arc::new(an_hour_ago),
        )
        .await
        .unwrap();
        let (token, _) = tokens
            .sign(
                text(&status, "organization_id").parse().unwrap(),
                text(&me, "id").parse().unwrap(),
                SessionId::from_uuid(uuid::Uuid::nil()),
                Role::Admin,
            )
            .unwrap();
        token
    }

    pub async fn secret(&self, admin: &str, wish: Value) -> String {
        let created = self
            .post("/api/v1/enrollment-secrets", admin, wish)
            .await
            .expect(201);
        created["secret"].as_str().unwrap().to_owned()
    }

    /// Enrols a device by an operator's hand and gives it with its token.
    pub async fn enroll(&self, operator: &str, uuid: &str) -> (Value, String) {
        let device = self
            .post("/api/v1/devices", operator, device(uuid))
            .await
            .expect(201);
        let token = device["device_token"].as_str().unwrap().to_owned();
        (device, token)
    }

    pub async fn check_in(&self, device_token: &str, body: Value) -> Value {
        self.post("/api/v1/device/checkin", device_token, body)
            .await
            .expect(200)
    }

    /// The whole log, as an administrator sees it, once `count` events are in it.
    pub async fn events(&self, admin: &str, count: usize) -> Vec<Value> {
        mdm_testkit::wait_until(
            format!("{count} events"),
            Duration::from_secs(10),
            async || {
                let page = self
                    .get("/api/v1/events?limit=500", admin)
                    .await
                    .expect(200);
                let events = page["events"].as_array().unwrap().clone();
                (events.len() >= count).then_some(events)
            },
        )
        .await
    }
}

pub fn device(uuid: &str) -> Value {
    json!({ "uuid": uuid, "hostname": format!("host-{uuid}"), "platform": "linux", "os_version": "12" })
}

pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} in {value}"))
}

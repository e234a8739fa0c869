//! Several nodes on one database.

use std::time::Duration;

use mdm_testkit::{TestDatabase, wait_until};
use serde_json::{Value, json};

use crate::processes::Server;

pub const PATIENCE: Duration = Duration::from_mins(1);
const PASSWORD: &str = "correct horse battery staple";

/// Nodes on one database.
pub struct Fleet {
    pub nodes: Vec<Server>,
    #[cfg_attr(
        not(feature = "slow"),
        expect(dead_code, reason = "the slow suite looks into it")
    )]
    pub database: TestDatabase,
    pub token: String,
    pub directory: tempfile::TempDir,
}

impl Fleet {
    /// Starts so many, with further settings in the environment.
    pub async fn start(count: usize, more: &[(&str, &str)]) -> Self {
        let directory = mdm_testkit::postgres::temp_directory().unwrap();
        let database = TestDatabase::create().await;
        let url = database.url().to_owned();
        let mut settings = vec![
            ("MDM_DATABASE_URL", url.as_str()),
            ("MDM_DATABASE_CONNECTIONS", "8"),
            ("MDM_ADMIN_PASSWORD", PASSWORD),
            (
                "MDM_SECRET_KEY",
                "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
            ),
        ];
        settings.extend(more);
        let nodes: Vec<_> = (0..count)
            .map(|number| {
                let data_dir = directory.path().join(format!("node-{number}"));
                Server::start(&data_dir, &settings)
            })
            .collect();
        let token = nodes[0].login(PASSWORD).await;
        let fleet = Self {
            nodes,
            database,
            token,
            directory,
        };
        fleet.until_all_know_each_other().await;
        fleet
    }

    async fn until_all_know_each_other(&self) {
        for node in &self.nodes {
            wait_until("the nodes know each other", PATIENCE, async || {
                let status = self.status(node).await?;
                (status["nodes"].as_array()?.len() == self.nodes.len()).then_some(())
            })
            .await;
        }
    }

    pub async fn status(&self, node: &Server) -> Option<Value> {
        let path = "/api/v1/websocket/status";
        let (code, status) = node.try_call("GET", path, &self.token, None, None).await?;
        (code == 200).then_some(status)
    }

    /// Which node leads, as it says itself.
    pub async fn leader(&self) -> usize {
        wait_until("a leader", PATIENCE, async || {
            for (number, node) in self.nodes.iter().enumerate() {
                if is_leader(node).await {
                    return Some(number);
                }
            }
            None
        })
        .await
    }

    /// Another administrator's or user's token.
    pub async fn user(&self, name: &str, role: &str) -> String {
        let email = format!("{name}@example.org");
        let user = json!({ "email": email, "password": PASSWORD, "role": role });
        let node = &self.nodes[0];
        node.post("/api/v1/users", &self.token, user).await;
        let login = json!({ "email": email, "password": PASSWORD });
        let tokens = node.post("/api/v1/auth/login", "", login).await;
        tokens["token"].as_str().unwrap().to_owned()
    }
}

/// Whether the node itself says that it leads. One that stands still says nothing.
pub async fn is_leader(node: &Server) -> bool {
    let metrics = mdm_client::http_client(Duration::from_secs(1))
        .unwrap()
        .get(format!("{}/metrics", node.url));
    let Ok(answer) = metrics.send().await else {
        return false;
    };
    let text = answer.text().await.unwrap_or_default();
    text.lines().any(|line| line == "mdm_leader 1")
}

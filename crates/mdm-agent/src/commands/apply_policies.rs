//! `apply_policies`: fetch the policies and look at the machine now.

use serde_json::json;
use tokio::sync::mpsc;

use super::{CommandOutcome, Context};
use crate::{executor::News, policies};

pub(super) async fn execute(context: &Context, news: &mpsc::Sender<News>) -> CommandOutcome {
    match policies::look(&context.client).await {
        Ok(findings) => {
            let answer = json!({
                "policy_revision": findings.revision,
                "policies": findings.results.len(),
            });
            // Before the command's own end, so that the server knows the findings when it does.
            let _ending = news.send(News::Policies(findings)).await;
            CommandOutcome::Completed(answer)
        }
        Err(error) => CommandOutcome::Failed(error.to_string()),
    }
}

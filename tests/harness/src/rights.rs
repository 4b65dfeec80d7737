//! What the API server's authorizer says.

use anyhow::{Context as _, Result};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

/// May this ServiceAccount, named as a user, do this?
pub async fn may(client: Client, user: &str, what: ResourceAttributes) -> Result<bool> {
    let namespace_of_user = user.split(':').nth(2).unwrap_or_default();
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            groups: Some(
                [
                    "system:authenticated",
                    "system:serviceaccounts",
                    &format!("system:serviceaccounts:{namespace_of_user}"),
                ]
                .map(str::to_owned)
                .to_vec(),
            ),
            resource_attributes: Some(what),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = Api::<SubjectAccessReview>::all(client).create(&PostParams::default(), &review).await?;
    Ok(answer.status.context("no answer")?.allowed)
}

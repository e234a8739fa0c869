//! Many devices join at once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use mdm_core::{
    Invalid,
    devices::Device,
    enrollment::{EnrollmentSecret, SecretRefused},
    ids::{DeviceId, OrganizationId},
    roles::Permission,
    tokens::{Token, TokenKind},
};
use mdm_store::{PgConnection, devices, enrollment_secrets, events};
use tokio::sync::oneshot;

use super::{
    DeviceError, Enrolled, Enroller, Enrollment,
    enroll::{enrolled_event, parse},
};
use crate::{context::OpContext, gathering::Duty, services::Services};

/// How many devices can be enrolled at once.
pub const BULK_AT_MOST: usize = 1_000;

/// A device of the bulk that may join.
struct Candidate {
    place: usize,
    device: Device,
    token: Token,
    secret: Option<String>,
}

impl Services {
    /// Enrols devices, each with its own outcome, in the order in which they came. What can be
    /// enrolled is, in one transaction.
    pub async fn enroll_many(
        &self,
        ctx: &OpContext,
        enrollments: Vec<Enrollment>,
    ) -> Result<Vec<Result<Enrolled, DeviceError>>, DeviceError> {
        ctx.require(Permission::WriteDevices)?;
        if enrollments.is_empty() || enrollments.len() > BULK_AT_MOST {
            let detail = format!("must name 1 to {BULK_AT_MOST} devices");
            return Err(Invalid::new("/devices", "WRONG_NUMBER", detail).into());
        }
        let enroller = Enroller::User(*ctx);
        let all: Vec<_> = enrollments.iter().collect();
        let mut outcomes = match self.enroll_together(ctx, &all).await {
            Ok(outcomes) => outcomes,
            // Not all of them fit any more: one by one, as many as do.
            Err(
                DeviceError::LicenseLimit
                | DeviceError::LicenseExpired
                | DeviceError::SecretRefused(_),
            ) => enrollments
                .iter()
                .map(|_| Err(DeviceError::AlreadyEnrolled))
                .collect(),
            Err(error) => return Err(error),
        };
        for (enrollment, outcome) in enrollments.iter().zip(&mut outcomes) {
            // It may come back, or take over from its former self.
            if matches!(outcome, Err(DeviceError::AlreadyEnrolled)) {
                *outcome = self.enroll_alone(&enroller, enrollment).await;
            }
        }
        Ok(outcomes)
    }

    async fn enroll_together(
        &self,
        ctx: &OpContext,
        enrollments: &[&Enrollment],
    ) -> Result<Vec<Result<Enrolled, DeviceError>>, DeviceError> {
        let mut tx = self.begin().await?;
        let mut secrets: HashMap<String, EnrollmentSecret> = HashMap::new();
        // Until a device is in, its outcome is a refusal: nobody gets a token by its place alone.
        let mut outcomes: Vec<_> = enrollments
            .iter()
            .map(|_| Err(DeviceError::AlreadyEnrolled))
            .collect();
        let (mut candidates, mut uuids) = (Vec::new(), HashSet::new());
        for (place, (enrollment, outcome)) in enrollments.iter().zip(&mut outcomes).enumerate() {
            match self
                .candidate(&mut tx, ctx, place, enrollment, &mut secrets)
                .await
            {
                Ok(candidate) => {
                    if uuids.insert(enrollment.uuid.trim().to_owned()) {
                        candidates.push(candidate);
                    }
                }
                Err(DeviceError::Store(error)) => return Err(error.into()),
                Err(refused) => *outcome = Err(refused),
            }
        }
        // Two bulks that share devices must write them in the same order.
        candidates.sort_by(|a, b| a.device.uuid.as_str().cmp(b.device.uuid.as_str()));
        let rows: Vec<_> = candidates
            .iter()
            .map(|candidate| (&candidate.device, candidate.token.hash()))
            .collect();
        let inserted: HashSet<DeviceId> = devices::insert_many(&mut tx, &rows)
            .await?
            .into_iter()
            .collect();
        let mut joined = candidates;
        joined.retain(|candidate| inserted.contains(&candidate.device.id));
        self.welcome(&mut tx, ctx, &joined, &secrets).await?;
        self.commit(tx).await?;
        for candidate in joined {
            if let Some(place) = outcomes.get_mut(candidate.place) {
                *place = Ok(Enrolled {
                    device: candidate.device,
                    token: candidate.token,
                });
            }
        }
        Ok(outcomes)
    }

    async fn candidate(
        &self,
        tx: &mut PgConnection,
        ctx: &OpContext,
        place: usize,
        enrollment: &Enrollment,
        secrets: &mut HashMap<String, EnrollmentSecret>,
    ) -> Result<Candidate, DeviceError> {
        let mut facts = parse(enrollment)?;
        if let Some(presented) = &enrollment.secret {
            if !secrets.contains_key(presented) {
                let enroller = Enroller::User(*ctx);
                let found = self.admit(tx, &enroller, Some(presented)).await?;
                let own = found.filter(|secret| secret.organization_id == ctx.organization_id);
                let own = own.ok_or(DeviceError::SecretRefused(SecretRefused::Unknown))?;
                secrets.insert(presented.clone(), own);
            }
            if let Some(secret) = secrets.get(presented) {
                facts.labels = secret.labels.clone().overlaid_with(&facts.labels);
            }
        }
        let id = DeviceId::new(self.clock.as_ref(), self.entropy.as_ref());
        Ok(Candidate {
            place,
            device: facts.into_device(id, ctx, self.now()),
            token: Token::generate(TokenKind::Device, self.entropy.as_ref()),
            secret: enrollment.secret.clone(),
        })
    }

    /// What follows the enrolment of devices, within its transaction.
    async fn welcome(
        &self,
        tx: &mut PgConnection,
        ctx: &OpContext,
        joined: &[Candidate],
        secrets: &HashMap<String, EnrollmentSecret>,
    ) -> Result<(), DeviceError> {
        if joined.is_empty() {
            return Ok(());
        }
        let told: Vec<_> = joined
            .iter()
            .map(|candidate| enrolled_event(&candidate.device, None))
            .collect();
        events::append_all(&mut *tx, self.now(), &told).await?;
        for (presented, secret) in secrets {
            let devices: Vec<_> = brought(joined, presented).collect();
            self.join_groups(&mut *tx, &devices, &secret.group_ids)
                .await?;
        }
        let devices: Vec<_> = joined.iter().map(|candidate| &candidate.device).collect();
        self.enter_by_filters(&mut *tx, ctx.organization_id, &devices)
            .await?;
        let ids: Vec<_> = devices.iter().map(|device| device.id).collect();
        self.check_license(&mut *tx, ctx, &ids).await?;
        for (presented, secret) in secrets {
            let uses = i32::try_from(brought(joined, presented).count()).unwrap_or(i32::MAX);
            if uses > 0 {
                self.count_use(&mut *tx, secret, presented, uses).await?;
            }
        }
        Ok(())
    }
}

/// The devices that brought a secret.
fn brought<'a>(
    joined: &'a [Candidate],
    presented: &'a str,
) -> impl Iterator<Item = &'a Device> + use<'a> {
    joined
        .iter()
        .filter(move |candidate| candidate.secret.as_deref() == Some(presented))
        .map(|candidate| &candidate.device)
}

/// How many transactions of devices that join by themselves are under way at once.
pub const JOINING_AT_ONCE: usize = 2;
/// How many devices join in one transaction at most.
const JOINING_TOGETHER: usize = 200;

/// A device that joins by itself, and who waits for its token.
pub struct Joining {
    secret: String,
    enrollment: Arc<Enrollment>,
    tell: oneshot::Sender<Enrolled>,
}

impl Services {
    /// Enrols a device that brings a secret, together with those that come at the same time and
    /// bring the same one. `None` if that cannot be: then it has to be enrolled alone, and gets to
    /// know why.
    pub(super) async fn join_together(&self, enrollment: &Arc<Enrollment>) -> Option<Enrolled> {
        let secret = enrollment.secret.clone()?;
        // Who takes over from its former self is looked at alone.
        if enrollment.re_enroll {
            return None;
        }
        let (tell, told) = oneshot::channel();
        let joining = Joining {
            secret,
            enrollment: Arc::clone(enrollment),
            tell,
        };
        if let Some(duty) = self.joining.add(joining) {
            tokio::spawn(self.clone().let_join(duty));
        }
        told.await.ok()
    }

    async fn let_join(self, mut duty: Duty<Joining>) {
        loop {
            let mut by_secret = HashMap::<_, Vec<_>>::new();
            for joining in duty.next() {
                let together = by_secret.entry(joining.secret.clone()).or_default();
                together.push(joining);
            }
            if by_secret.is_empty() {
                return;
            }
            for (secret, mut all) in by_secret {
                while !all.is_empty() {
                    let together = all.split_off(all.len().saturating_sub(JOINING_TOGETHER));
                    self.let_some_join(&secret, together).await;
                }
            }
        }
    }

    /// Dropping a sender tells whoever waits that it has to go alone.
    async fn let_some_join(&self, secret: &str, together: Vec<Joining>) {
        let Some(organization) = self.organization_of(secret).await else {
            return;
        };
        let enrollments: Vec<_> = together
            .iter()
            .map(|joining| joining.enrollment.as_ref())
            .collect();
        let ctx = OpContext::system(organization);
        let Ok(outcomes) = self.enroll_together(&ctx, &enrollments).await else {
            return;
        };
        for (joining, outcome) in together.into_iter().zip(outcomes) {
            if let Ok(enrolled) = outcome {
                let _given_up = joining.tell.send(enrolled);
            }
        }
    }

    async fn organization_of(&self, secret: &str) -> Option<OrganizationId> {
        let token = Token::parse(TokenKind::EnrollmentSecret, secret)?;
        let mut conn = self.pool.acquire().await.ok()?;
        let found = enrollment_secrets::find_by_hash(&mut conn, token.hash()).await;
        found.ok()?.map(|secret| secret.organization_id)
    }
}

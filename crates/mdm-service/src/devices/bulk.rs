//! Many devices join at once.

use std::collections::{HashMap, HashSet};

use mdm_core::{
    Invalid,
    devices::Device,
    enrollment::{EnrollmentSecret, SecretRefused},
    ids::DeviceId,
    roles::Permission,
    tokens::{Token, TokenKind},
};
use mdm_store::{PgConnection, devices, events};

use super::{
    DeviceError, Enrolled, Enroller, Enrollment,
    enroll::{enrolled_event, parse},
};
use crate::{context::OpContext, groups::Changed, services::Services};

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
        match self.enroll_together(ctx, &enrollments).await {
            // Not all of them fit any more: one by one, as many as do.
            Err(
                DeviceError::LicenseLimit
                | DeviceError::LicenseExpired
                | DeviceError::SecretRefused(_),
            ) => Ok(self.enroll_one_by_one(ctx, enrollments).await),
            together => together,
        }
    }

    async fn enroll_one_by_one(
        &self,
        ctx: &OpContext,
        enrollments: Vec<Enrollment>,
    ) -> Vec<Result<Enrolled, DeviceError>> {
        let mut outcomes = Vec::with_capacity(enrollments.len());
        for enrollment in enrollments {
            outcomes.push(self.enroll_device(&Enroller::User(*ctx), enrollment).await);
        }
        outcomes
    }

    async fn enroll_together(
        &self,
        ctx: &OpContext,
        enrollments: &[Enrollment],
    ) -> Result<Vec<Result<Enrolled, DeviceError>>, DeviceError> {
        let mut tx = self.begin().await?;
        let mut secrets: HashMap<String, EnrollmentSecret> = HashMap::new();
        let mut outcomes: Vec<Option<Result<Enrolled, DeviceError>>> = Vec::new();
        let (mut candidates, mut uuids) = (Vec::new(), HashSet::new());
        for (place, enrollment) in enrollments.iter().enumerate() {
            outcomes.push(
                match self
                    .candidate(&mut tx, ctx, place, enrollment, &mut secrets)
                    .await
                {
                    Ok(candidate) if !uuids.insert(enrollment.uuid.trim().to_owned()) => {
                        drop(candidate);
                        Some(Err(DeviceError::AlreadyEnrolled))
                    }
                    Ok(candidate) => {
                        candidates.push(candidate);
                        None
                    }
                    Err(DeviceError::Store(error)) => return Err(error.into()),
                    Err(refused) => Some(Err(refused)),
                },
            );
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
        let mut joined = Vec::new();
        for candidate in candidates {
            let outcome = if inserted.contains(&candidate.device.id) {
                joined.push(candidate.device.id);
                self.welcome(&mut tx, &candidate, &secrets).await?;
                Ok(Enrolled {
                    device: candidate.device,
                    token: candidate.token,
                })
            } else {
                Err(DeviceError::AlreadyEnrolled)
            };
            if let Some(place) = outcomes.get_mut(candidate.place) {
                *place = Some(outcome);
            }
        }
        self.check_license(&mut tx, ctx, &joined).await?;
        self.commit(tx).await?;
        Ok(outcomes.into_iter().flatten().collect())
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

    /// What follows a device's enrolment, within its transaction.
    async fn welcome(
        &self,
        tx: &mut PgConnection,
        candidate: &Candidate,
        secrets: &HashMap<String, EnrollmentSecret>,
    ) -> Result<(), DeviceError> {
        let device = &candidate.device;
        events::append(&mut *tx, self.now(), &enrolled_event(device, None)).await?;
        let presented = candidate.secret.as_ref();
        if let Some((presented, secret)) =
            presented.and_then(|presented| Some((presented, secrets.get(presented)?)))
        {
            self.join_groups(&mut *tx, device, &secret.group_ids)
                .await?;
            self.count_use(&mut *tx, secret, presented).await?;
        }
        self.follow_filters(tx, device, Changed::Facts).await?;
        Ok(())
    }
}

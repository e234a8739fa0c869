//! The license.

use mdm_proto::licenses::{LicenseStatus, PutLicense};

use crate::{Client, ClientError};

impl Client {
    /// Where the license stands.
    pub async fn license_status(&self) -> Result<LicenseStatus, ClientError> {
        self.get("/api/v1/license/status").await
    }

    /// Sets the license key, or takes the present one away. One that is wrong, expired or for
    /// another organisation is a 422.
    pub async fn set_license(&self, key: Option<&str>) -> Result<LicenseStatus, ClientError> {
        let body = PutLicense {
            key: key.map(str::to_owned),
        };
        self.put("/api/v1/license", &body, None).await
    }
}

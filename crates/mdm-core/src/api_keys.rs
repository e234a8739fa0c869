//! API keys: how programs sign in.

use crate::{
    clock::Timestamp,
    ids::{ApiKeyId, OrganizationId, UserId},
    invalid::Invalid,
    roles::{Permission, Permissions, Role},
};

/// A key, without the key itself: only its hash is kept.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// The organisation that it works in.
    pub organization_id: OrganizationId,
    /// What people call it.
    pub name: String,
    /// The most that it may do.
    pub role: Role,
    /// What of the role's permissions it has; all of them if absent.
    pub scopes: Option<Vec<Permission>>,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// Who made it, and for whom it acts.
    pub created_by: UserId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl ApiKey {
    /// What the key permits: never more than its role.
    pub fn permissions(&self) -> Permissions {
        let role = Permissions::of(self.role);
        match &self.scopes {
            Some(scopes) => role.and(scopes.iter().copied().collect()),
            None => role,
        }
    }
}

/// Takes scopes by name; refuses those that the role would not permit, because a key that silently
/// does less than it says is a trap.
pub fn parse_scopes(role: Role, names: &[String]) -> Result<Vec<Permission>, Invalid> {
    let mut scopes = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let pointer = format!("/scopes/{index}");
        let scope: Permission =
            name.parse()
                .map_err(|unknown: crate::roles::UnknownPermission| {
                    Invalid::new(&pointer, "UNKNOWN_SCOPE", unknown.to_string())
                })?;
        if !role.permits(scope) {
            let detail = format!("the role {role} does not permit it");
            return Err(Invalid::new(pointer, "BEYOND_ROLE", detail));
        }
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    if scopes.is_empty() {
        let detail =
            "must name at least one scope; leave the field out for all that the role permits";
        return Err(Invalid::new("/scopes", "EMPTY", detail));
    }
    Ok(scopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_beyond_the_role_is_refused() {
        let names = ["devices:read".to_owned(), "commands:run".to_owned()];
        let refused = parse_scopes(Role::Viewer, &names).unwrap_err();
        assert_eq!(
            (refused.pointer.as_str(), refused.code),
            ("/scopes/1", "BEYOND_ROLE")
        );
        assert_eq!(parse_scopes(Role::Operator, &names).unwrap().len(), 2);
    }
}

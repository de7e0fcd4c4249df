//! Who a caller is, and what that lets them do.

use std::fmt;

use crate::{
    gateway::limit::overrides::LimitOverrides,
    model::{Matcher, TenantId},
};

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Send samples.
    Write,
    /// Ask.
    Read,
    /// Delete samples.
    Delete,
    /// Change rules.
    Rules,
    /// Operate the server, and whatever else there is.
    Admin,
}

impl Scope {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Write, Self::Read, Self::Delete, Self::Rules, Self::Admin];

    /// The name it has in tokens and keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Delete => "delete",
            Self::Rules => "rules",
            Self::Admin => "admin",
        }
    }

    /// The scope of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Whether the set lets a caller do something; who operates the server may do everything.
    pub fn allow(self, scope: Scope) -> bool {
        let bit = |scope: Scope| 1 << scope as u8;
        self.0 & (bit(scope) | bit(Scope::Admin)) != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | 1 << scope as u8))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(Scope::ALL.into_iter().filter(|scope| self.0 & (1 << *scope as u8) != 0))
            .finish()
    }
}

/// A tenant's name, or names of one beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantPattern {
    /// One tenant.
    One(TenantId),
    /// All whose names begin so: `team-*`; with nothing before the star, all.
    Prefix(String),
}

impl TenantPattern {
    /// Whether a tenant is meant.
    pub fn matches(&self, tenant: &TenantId) -> bool {
        match self {
            Self::One(one) => one == tenant,
            Self::Prefix(prefix) => tenant.as_str().starts_with(prefix.as_str()),
        }
    }
}

/// The tenants a caller may act for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantAccess {
    /// For whom, if the request names nobody.
    pub default: Option<TenantId>,
    /// For whom else, if the request names them.
    pub others: Vec<TenantPattern>,
}

impl TenantAccess {
    /// One tenant and nobody else.
    pub fn only(tenant: TenantId) -> Self {
        Self { default: Some(tenant), others: Vec::new() }
    }

    /// Whoever is named; nobody named is `default`.
    pub fn any(default: Option<TenantId>) -> Self {
        Self { default, others: vec![TenantPattern::Prefix(String::new())] }
    }

    /// Whether a caller may act for a tenant.
    pub fn allows(&self, tenant: &TenantId) -> bool {
        self.default.as_ref() == Some(tenant) || self.others.iter().any(|pattern| pattern.matches(tenant))
    }
}

/// By what a caller was known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nobody was asked.
    Anyone,
    /// A JSON Web Token.
    Token,
    /// An API key of this id.
    Key(String),
    /// The certificate of the connection.
    Certificate,
    /// An address that speaks for others.
    TrustedProxy,
}

impl Known {
    /// The word for it in logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::Token => "token",
            Self::Key(_) => "key",
            Self::Certificate => "certificate",
            Self::TrustedProxy => "trusted_proxy",
        }
    }
}

/// A caller who was let in.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Who, for logs; never a secret.
    pub name: String,
    /// By what they were known.
    pub known: Known,
    /// What they may do.
    pub scopes: Scopes,
    /// For whom.
    pub tenants: TenantAccess,
    /// Labels that each series they write gets.
    pub stamps: Vec<(String, String)>,
    /// What they may read: one of the sets must match; none at all is everything.
    pub filters: Vec<Vec<Matcher>>,
    /// Limits of theirs, capped by the server's hard ones.
    pub limits: LimitOverrides,
}

impl Principal {
    /// Who comes in where nobody is asked: everything, for whoever is named, or for `anonymous`.
    pub fn anyone() -> Self {
        Self {
            name: "anyone".to_owned(),
            known: Known::Anyone,
            scopes: Scopes::all(),
            tenants: TenantAccess::any(Some(TenantId::anonymous())),
            stamps: Vec::new(),
            filters: Vec::new(),
            limits: LimitOverrides::default(),
        }
    }
}

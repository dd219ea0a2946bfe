//! The two users of a simulated phone, and how their files are opened.

use std::time::Duration;

use syncline_core::{Config, EntityType, Retention};

use super::life::TYPES;
use super::plan::Setting;
use crate::world::{OTHER_SCOPE, OTHER_TOKEN, OTHER_USER, TOKEN, World};

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    First,
    Other,
}

impl Account {
    pub(super) fn other(self) -> Self {
        match self {
            Self::First => Self::Other,
            Self::Other => Self::First,
        }
    }

    pub(super) fn token(self) -> &'static str {
        match self {
            Self::First => TOKEN,
            Self::Other => OTHER_TOKEN,
        }
    }

    /// How its file is opened.
    pub(super) fn config(self, world: &World, name: &str, setting: &Setting) -> Config {
        let mut config = world.config(name);
        if self == Self::Other {
            (config.user_id, config.scope) = (OTHER_USER.to_owned(), OTHER_SCOPE.to_owned());
        }
        config.retention = retention(setting);
        if setting.filtered {
            config.pull_types = Some(vec![TYPES[0].to_owned(), TYPES[3].to_owned()]);
        }
        let of_type =
            EntityType { coalesce: setting.coalesce, send_before: setting.send_before, ..EntityType::default() };
        TYPES.into_iter().fold(config, |config, name| {
            let max_attempts = if setting.hasty_forms && name == "form" { 1 } else { of_type.max_attempts };
            config.entity_type(name, EntityType { max_attempts, ..of_type.clone() })
        })
    }
}

/// How long ended operations are kept.
pub(super) fn retention(setting: &Setting) -> Retention {
    if setting.forgetful { Retention { age: Duration::from_secs(60), count: 5 } } else { Retention::default() }
}

use std::borrow::Cow;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Both databases have the same migrations under the same numbers; only the dialect differs.
const SQLITE: &[(i64, &str, &str)] = &[
    (1, "events", include_str!("../../../migrations/sqlite/0001_events.sql")),
    (2, "webhooks", include_str!("../../../migrations/sqlite/0002_webhooks.sql")),
    (3, "links", include_str!("../../../migrations/sqlite/0003_links.sql")),
    (4, "aggregates", include_str!("../../../migrations/sqlite/0004_aggregates.sql")),
    (5, "subjects", include_str!("../../../migrations/sqlite/0005_subjects.sql")),
];
const POSTGRES: &[(i64, &str, &str)] = &[
    (1, "events", include_str!("../../../migrations/postgres/0001_events.sql")),
    (2, "webhooks", include_str!("../../../migrations/postgres/0002_webhooks.sql")),
    (3, "links", include_str!("../../../migrations/postgres/0003_links.sql")),
    (4, "aggregates", include_str!("../../../migrations/postgres/0004_aggregates.sql")),
    (5, "subjects", include_str!("../../../migrations/postgres/0005_subjects.sql")),
];

pub(super) fn sqlite() -> Migrator {
    migrator(SQLITE)
}

pub(super) fn postgres() -> Migrator {
    migrator(POSTGRES)
}

fn migrator(migrations: &[(i64, &'static str, &'static str)]) -> Migrator {
    Migrator::with_migrations(
        migrations
            .iter()
            .map(|(version, name, sql)| {
                Migration::new(
                    *version,
                    Cow::Borrowed(*name),
                    MigrationType::Simple,
                    sql.into_sql_str(),
                    false,
                )
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_databases_have_the_same_migrations() {
        let names = |migrations: &[(i64, &'static str, &str)]| -> Vec<(i64, &'static str)> {
            migrations.iter().map(|(version, name, _)| (*version, *name)).collect()
        };
        assert_eq!(names(SQLITE), names(POSTGRES));
    }
}

//! Variants: a workload with some values replaced.
//!
//! A variant is a table of what it replaces. A plain value takes the place of the one of that name,
//! a table is laid over the table of that name. `camera` or `model` as one table is laid over every
//! group; `model` as a list is laid over the models of the same `name`.

use super::{Workload, WorkloadError, wrong};
use serde::Deserialize;
use std::collections::BTreeSet;
use toml::{Table, Value};

/// `base` was parsed from `text`; `common` holds the variants that every workload has.
pub(super) fn apply(
    base: &Workload,
    text: &str,
    common: &str,
    variants: &[&str],
) -> Result<Workload, WorkloadError> {
    let read = |text: &str| text.parse::<Table>().map_err(|e| WorkloadError(e.to_string()));
    let (mut table, common) = (read(text)?, read(common)?);
    for name in variants {
        let common_one = common.get(*name).and_then(Value::as_table);
        let Some(over) = base.variant.get(*name).or(common_one) else {
            let known: BTreeSet<_> = base.variant.keys().chain(common.keys()).collect();
            let known: Vec<_> = known.into_iter().map(String::as_str).collect();
            return wrong(format!("no variant `{name}`, there are: {}", known.join(", ")));
        };
        for (key, value) in over {
            lay(&mut table, key, value)?;
        }
    }
    let workload = Workload::deserialize(Value::Table(table))
        .map_err(|e| WorkloadError(format!("with variant {}: {e}", variants.join("+"))))?;
    workload.check()?;
    Ok(workload)
}

fn lay(table: &mut Table, key: &str, value: &Value) -> Result<(), WorkloadError> {
    match (table.get_mut(key), value) {
        (Some(Value::Array(groups)), Value::Table(over)) => {
            for group in groups.iter_mut().filter_map(Value::as_table_mut) {
                group.extend(over.clone());
            }
        }
        (Some(Value::Array(groups)), Value::Array(overs)) if key == "model" => {
            for over in overs.iter().filter_map(Value::as_table) {
                let of = |g: &Table| g.get("name").is_some() && g.get("name") == over.get("name");
                let group = groups.iter_mut().filter_map(Value::as_table_mut).find(|g| of(g));
                let Some(group) = group else {
                    return wrong(format!("a variant replaces values of no known model: {over}"));
                };
                group.extend(over.clone());
            }
        }
        (Some(Value::Table(under)), Value::Table(over)) => under.extend(over.clone()),
        _ => {
            table.insert(key.to_owned(), value.clone());
        }
    }
    Ok(())
}

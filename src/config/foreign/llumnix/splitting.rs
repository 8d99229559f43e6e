//! Which models lead to which route, and with what weight: by `--route-policy`.

use super::super::fields::{Notes, quoted};
use super::flags::RoutePolicy;
use super::route::{Route, pattern};

const ANY: &str = "*";
/// The largest native weight.
const MOST: u64 = 1000;

/// Decides models and shares of all routes.
pub(super) fn split(routes: &mut [Route<'_>], policy: Option<RoutePolicy>, notes: &mut Notes) {
    match policy {
        Some(RoutePolicy::Prefix) => by_prefix(routes, notes),
        Some(RoutePolicy::Weight) => by_weight(routes, notes),
        None => undecided(routes, notes),
    }
}

/// That there is no policy was refused. Models keep what follows from saying that nothing is served, too.
fn undecided(routes: &mut [Route<'_>], notes: &mut Notes) {
    for route in routes.iter_mut() {
        route.models = vec![ANY.into()];
        for (name, given) in [
            ("prefix", route.prefix.is_some()),
            ("weight", route.weight.is_some_and(|weight| weight >= 0)),
        ] {
            if given {
                notes.warned(route.at(name), "not looked at without --route-policy");
            }
        }
    }
}

/// A name goes to the exact prefix, else to the longest; among equals the first of the list has it all.
fn by_prefix(routes: &mut [Route<'_>], notes: &mut Notes) {
    let mut seen: Vec<String> = Vec::new();
    for route in routes.iter_mut() {
        if route.weight.is_some_and(|weight| weight >= 0) {
            notes.warned(
                route.at("weight"),
                "without effect beside --route-policy prefix",
            );
        }
        let path = route.at("prefix");
        match route
            .prefix
            .filter(|prefix| !prefix.is_empty())
            .map(pattern)
        {
            Some(Ok(prefix)) if seen.contains(&prefix) => {
                let message = format!(
                    "{} leads to an earlier route, as in Llumnix",
                    quoted(&prefix)
                );
                notes.warned(path, message);
            }
            Some(Ok(prefix)) => {
                notes.taken(path, format!("models = [{}]", quoted(&prefix)));
                seen.push(prefix.clone());
                route.models = vec![prefix];
            }
            Some(Err(message)) => notes.refused(path, message),
            None if route.falls_back() => {
                notes.assumed(path, "none: it is reached as a fallback alone")
            }
            None => notes.warned(path, "none: nothing leads to this route, so it is left out"),
        }
    }
    if !seen.iter().any(|prefix| prefix == ANY) {
        others_fall_back(routes, "of models that no prefix matches", notes);
    }
}

/// One draw over the sum of weights, whatever the model.
fn by_weight(routes: &mut [Route<'_>], notes: &mut Notes) {
    let weights = routes
        .iter()
        .filter_map(|route| u64::try_from(route.weight?).ok());
    let largest = weights.max().unwrap_or(0);
    for route in routes.iter_mut() {
        if route.prefix.is_some() {
            notes.warned(
                route.at("prefix"),
                "without effect beside --route-policy weight",
            );
        }
        let path = route.at("weight");
        let weight = route.weight.and_then(|weight| u64::try_from(weight).ok());
        let Some(weight) = weight.filter(|weight| *weight > 0) else {
            match (route.weight, route.falls_back()) {
                (Some(..0), _) => {}
                (Some(_), true) => {
                    notes.adapted(path, "no `models`: it is reached as a fallback alone")
                }
                (Some(_), false) => {
                    notes.warned(path, "nothing leads to this route, so it is left out")
                }
                (None, true) => {
                    notes.assumed(path, "0, as in Llumnix: it is reached as a fallback alone")
                }
                (None, false) => notes.assumed(
                    path,
                    "0, as in Llumnix: nothing leads to this route, so it is left out",
                ),
            }
            continue;
        };
        route.models = vec![ANY.into()];
        if largest <= MOST {
            notes.taken(path, format!("`weight`; models = [\"{ANY}\"]"));
            route.share = Some(weight);
        } else {
            let share = (u128::from(weight) * u128::from(MOST)).div_ceil(u128::from(largest));
            let share = u64::try_from(share).unwrap_or(MOST);
            let message =
                format!("weight = {share}: the largest here is {MOST}; models = [\"{ANY}\"]");
            notes.adapted(path, message);
            route.share = Some(share);
        }
    }
    if largest == 0 {
        others_fall_back(routes, "of all models, since no route has a weight,", notes);
    }
}

/// Llumnix sends what no route is for along the fallback chain.
fn others_fall_back(routes: &mut [Route<'_>], what: &str, notes: &mut Notes) {
    let Some(first) = routes.iter_mut().find(|route| route.falls_back()) else {
        return;
    };
    let message = format!("requests {what} go to the first fallback: \"{ANY}\" among its `models`");
    notes.adapted(first.path.clone(), message);
    first.models.push(ANY.into());
}

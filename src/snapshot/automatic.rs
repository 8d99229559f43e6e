//! The models that a gateway's services have from their engines, beside those that are listed in documents.
//!
//! A snapshot does not change, but what engines serve does. So this is a table of its own, made of the services' engines when it is first asked and
//! again when any engine's list has changed, without a lock and without a new revision. A name that a document lists is never in it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use super::gateway::list_models;
use super::{ListedModel, Listing, Offer, Split};
use crate::balance::Edition;

/// The services with `models = "auto"`, and what follows from them.
#[derive(Debug)]
pub(super) struct Automatic {
    offers: Vec<Arc<Offer>>,
    /// What documents list.
    listed: Arc<Listing>,
    edition: Arc<Edition>,
    table: ArcSwapOption<Table>,
}

/// What engines serve, by name.
#[derive(Debug)]
struct Table {
    edition: u64,
    splits: HashMap<Arc<str>, Split>,
    /// With what documents list.
    listing: Arc<Listing>,
}

impl Automatic {
    /// `None` if no service has its models from engines.
    pub(super) fn of(
        offers: &[Arc<Offer>],
        listed: &Arc<Listing>,
        edition: &Arc<Edition>,
    ) -> Option<Automatic> {
        let auto = |offer: &&Arc<Offer>| offer.service.document.models.is_auto();
        let offers: Vec<_> = offers.iter().filter(auto).cloned().collect();
        (!offers.is_empty()).then(|| Automatic {
            offers,
            listed: listed.clone(),
            edition: edition.clone(),
            table: ArcSwapOption::empty(),
        })
    }

    /// Whose turn it is of those whose engines serve this model.
    pub(super) fn next_for(
        &self,
        model: &str,
        admits: impl Fn(&Offer) -> bool,
    ) -> Option<Arc<Offer>> {
        let table = self.table();
        table.splits.get(model)?.next_for(admits).cloned()
    }

    /// All models, whoever lists them.
    pub(super) fn listing(&self) -> Arc<Listing> {
        self.table().listing.clone()
    }

    fn table(&self) -> Arc<Table> {
        // Read before the lists are: one that changes meanwhile makes the table old again.
        let edition = self.edition.number();
        let known = self.table.load();
        if let Some(known) = known.as_ref().filter(|known| known.edition == edition) {
            return known.clone();
        }
        let table = Arc::new(self.make(edition));
        self.table.store(Some(table.clone()));
        table
    }

    fn make(&self, edition: u64) -> Table {
        let mut sharing: BTreeMap<Arc<str>, Vec<(Arc<Offer>, u64)>> = BTreeMap::new();
        for offer in &self.offers {
            for name in offer.service.upstream.models().iter() {
                if !self.listed.models.contains_key(&**name) {
                    let weight = u64::from(offer.service.document.weight);
                    let sharing = sharing.entry(name.clone()).or_default();
                    sharing.push((offer.clone(), weight));
                }
            }
        }
        let mut models = self.listed.models.clone();
        for (name, offers) in &sharing {
            let services = offers.iter().map(|(offer, _)| offer.service.clone());
            models.extend(ListedModel::of(name, services.collect()).map(|m| ((**name).into(), m)));
        }
        let splits = sharing.into_iter();
        Table {
            edition,
            splits: splits
                .filter_map(|(name, offers)| Some((name, Split::new(offers)?)))
                .collect(),
            listing: Arc::new(Listing::of(models)),
        }
    }
}

impl Listing {
    /// With the answer to who asks for all.
    pub(super) fn of(models: BTreeMap<Box<str>, ListedModel>) -> Listing {
        let all: Bytes = list_models(models.values());
        Listing { all, models }
    }
}

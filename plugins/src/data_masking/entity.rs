//! What is found without being described: patterns of common personal and secret data, with the checks that tell them from
//! numbers that only look alike.
//!
//! Every pattern is bounded in length, so that a stream is held back by no more, and in ASCII. Sources: ISO/IEC 7812-1 annex B (Luhn) for
//! cards, ISO 13616 with ISO 7064's mod 97-10 for IBANs, ITU-T E.164 for telephones, the SSA's rules for numbers never issued,
//! RFC 7519 for tokens; keys by the prefixes their issuers document.

use tollgate_sdk::document::{FromText, Invalid, suggest};
use tollgate_sdk::text_in_document;

/// Something that is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entity {
    /// An address for mail.
    Email,
    /// The number of a payment card.
    CreditCard,
    /// A bank account by its international number.
    Iban,
    /// A social security number of the United States.
    UsSsn,
    /// A telephone number, international or North American.
    Phone,
    /// An address of IPv4.
    Ipv4,
    /// A signed token.
    Jwt,
    /// A key of a known service.
    ApiKey,
    /// A key id of AWS.
    AwsAccessKey,
}

/// How much of a candidate is the real thing, if any of it is.
pub(super) type Accept = fn(&str) -> Option<usize>;

impl Entity {
    /// Every one, what is more specific first: of two that begin at one place the first wins.
    pub(super) const ALL: [Self; 9] = [
        Self::Email,
        Self::Jwt,
        Self::ApiKey,
        Self::AwsAccessKey,
        Self::CreditCard,
        Self::Iban,
        Self::UsSsn,
        Self::Phone,
        Self::Ipv4,
    ];

    /// Its names; the first is how it is written.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Email => &["email", "email_address"],
            Self::CreditCard => &["credit_card", "credit_card_number"],
            Self::Iban => &["iban"],
            Self::UsSsn => &["us_ssn", "ssn"],
            Self::Phone => &["phone", "phone_number"],
            Self::Ipv4 => &["ipv4", "ip_address"],
            Self::Jwt => &["jwt", "jwt_token"],
            Self::ApiKey => &["api_key"],
            Self::AwsAccessKey => &["aws_access_key"],
        }
    }

    /// What stands in its place unless told otherwise.
    pub(super) fn mask(self) -> String {
        format!("[MASKED_{}]", self.to_text().to_ascii_uppercase())
    }

    /// What candidates look like.
    pub(super) fn pattern(self) -> &'static str {
        match self {
            Self::Email => {
                r"(?-u:\b)[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,3}\.[A-Za-z]{2,24}(?-u:\b)"
            }
            Self::CreditCard => r"(?-u:\b)[2-6][0-9](?:[ -]?[0-9]){11,17}(?-u:\b)",
            Self::Iban => r"(?-u:\b)[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}(?-u:\b)",
            Self::UsSsn => r"(?-u:\b)[0-9]{3}-[0-9]{2}-[0-9]{4}(?-u:\b)",
            Self::Phone => {
                r"\+[1-9][0-9]{0,2}(?:[ .-]?\(?[0-9]{1,4}\)?){2,6}(?-u:\b)|\(?[2-9][0-9]{2}\)?[ .-][2-9][0-9]{2}[ .-][0-9]{4}(?-u:\b)"
            }
            Self::Ipv4 => {
                r"(?-u:\b)(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(?-u:\b)"
            }
            Self::Jwt => {
                r"(?-u:\b)eyJ[A-Za-z0-9_-]{5,200}\.eyJ[A-Za-z0-9_-]{5,1000}\.[A-Za-z0-9_-]{16,700}"
            }
            Self::ApiKey => concat!(
                r"(?-u:\b)(?:sk-[A-Za-z0-9_-]{20,200}|[sr]k_(?:live|test)_[A-Za-z0-9]{16,200}|gh[opsur]_[A-Za-z0-9]{36,200}",
                r"|github_pat_[A-Za-z0-9_]{22,200}|glpat-[A-Za-z0-9_-]{20,100}|xox[abprs]-[A-Za-z0-9-]{10,200}",
                r"|AIza[A-Za-z0-9_-]{35}|hf_[A-Za-z0-9]{30,100}|tg_[A-Za-z0-9]{4,40}_[A-Za-z0-9_-]{16,100})",
            ),
            Self::AwsAccessKey => r"(?-u:\b)(?:AKIA|ASIA)[A-Z0-9]{16}(?-u:\b)",
        }
    }

    /// What tells candidates apart.
    pub(super) fn accept(self) -> Option<Accept> {
        match self {
            Self::CreditCard => Some(|text| longest(text, card)),
            Self::Iban => Some(|text| longest(text, iban)),
            Self::UsSsn => Some(|text| ssn(text).then_some(text.len())),
            Self::Phone => Some(|text| phone(text).then_some(text.len())),
            Self::Email | Self::Ipv4 | Self::Jwt | Self::ApiKey | Self::AwsAccessKey => None,
        }
    }
}

impl FromText for Entity {
    const EXPECTED: &'static str = "an entity";
    const EXAMPLE: &'static str = "email";

    fn from_text(text: &str) -> Result<Self, Invalid> {
        let found = Self::ALL
            .into_iter()
            .find(|entity| entity.names().contains(&text));
        found.ok_or_else(|| {
            let known = Self::ALL.map(|entity| entity.names().first().copied().unwrap_or_default());
            let invalid = Invalid::new("not an entity this version knows");
            Invalid {
                help: Some(suggest(text, &known, "entities")),
                ..invalid
            }
        })
    }

    fn to_text(&self) -> String {
        self.names().first().copied().unwrap_or_default().to_owned()
    }
}

text_in_document!(Entity);

/// The longest beginning of a candidate that holds, cut where its groups end: what follows a card may be its check code.
fn longest(text: &str, holds: fn(&str) -> bool) -> Option<usize> {
    let groups = text.rmatch_indices([' ', '-']).map(|(at, _)| at);
    let mut ends = std::iter::once(text.len()).chain(groups);
    ends.find(|end| text.get(..*end).is_some_and(holds))
}

/// Luhn's check, of 13 to 19 digits.
fn card(text: &str) -> bool {
    let digits = text.bytes().rev().filter(u8::is_ascii_digit);
    let digits = digits.map(|digit| u32::from(digit - b'0'));
    let (mut count, mut sum) = (0, 0);
    for (place, digit) in digits.enumerate() {
        let doubled = if place % 2 == 1 { digit * 2 } else { digit };
        sum += doubled / 10 + doubled % 10;
        count += 1;
    }
    (13..=19).contains(&count) && sum % 10 == 0
}

/// The remainder by 97 of the number an IBAN stands for, its first four letters last.
fn iban(text: &str) -> bool {
    let letters: Vec<u8> = text.bytes().filter(u8::is_ascii_alphanumeric).collect();
    let Some((head, rest)) = letters.split_at_checked(4) else {
        return false;
    };
    let remainder = rest
        .iter()
        .chain(head)
        .fold(0, |remainder, letter| match letter {
            b'0'..=b'9' => (remainder * 10 + u32::from(letter - b'0')) % 97,
            letter => (remainder * 100 + u32::from(letter.to_ascii_uppercase() - b'A') + 10) % 97,
        });
    (15..=34).contains(&letters.len()) && remainder == 1
}

/// Whether such a number can have been issued.
fn ssn(text: &str) -> bool {
    let mut parts = text.split('-');
    let (area, group, serial) = (parts.next(), parts.next(), parts.next());
    let issued = area.is_some_and(|area| area != "000" && area != "666" && !area.starts_with('9'));
    issued && group != Some("00") && serial != Some("0000")
}

/// A number of the world has 8 to 15 digits.
fn phone(text: &str) -> bool {
    (8..=15).contains(&text.bytes().filter(u8::is_ascii_digit).count())
}

//! The `Cookie` header as two other libraries read it: the differences that we mean to have, and no other.

use std::collections::BTreeMap;

use biscotti::{Processor, ProcessorConfig, RequestCookies};
use http::HeaderValue;
use hyper_session::__internals::pairs;

type Values<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// `pairs` against the `cookie` crate and `biscotti`, on what all three can read. The differences, each on purpose:
///
/// - both take only text; we take bytes, as header fields are bytes. Fields that are not UTF-8 are not compared.
/// - both trim whatever Unicode calls white space; we trim SP and HTAB (T53: a name behind U+2000 is another name).
/// - `biscotti` refuses a whole header for one segment that is not a pair or has no name; we skip the segment.
pub fn cookie_header_peers(data: &[u8]) {
    let (Ok(_), Ok(text)) = (HeaderValue::from_bytes(data), std::str::from_utf8(data)) else { return };
    let ours: Vec<_> = pairs(data)
        .map(|(name, value)| {
            [name, value].map(|part| std::str::from_utf8(part).expect("parts of UTF-8").trim())
        })
        .filter(|[name, _]| !name.is_empty())
        .collect();

    let theirs: Vec<_> = cookie::Cookie::split_parse(text).filter_map(Result::ok).collect();
    let theirs: Vec<_> = theirs.iter().map(|cookie| [cookie.name(), cookie.value()]).collect();
    assert_eq!(ours, theirs, "the cookie crate");

    let mut config = ProcessorConfig::default();
    config.percent_encode = false;
    let processor = Processor::from(config);
    let theirs = RequestCookies::parse_header(text, &processor).ok();
    let refused = text
        .split(';')
        .filter(|segment| !segment.trim().is_empty())
        .any(|segment| segment.split_once('=').is_none_or(|(name, _)| name.trim().is_empty()));
    assert_eq!(theirs.is_none(), refused, "biscotti refuses for one of its two reasons");
    let Some(theirs) = theirs else { return };
    let mut by_name = Values::new();
    for [name, value] in ours {
        by_name.entry(name).or_default().push(value);
    }
    for (name, values) in by_name {
        let all = theirs.get_all(name).map(|all| all.values().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(
            all.as_deref(),
            Some(&values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>()[..])
        );
    }
}

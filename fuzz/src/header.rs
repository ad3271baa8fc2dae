//! The `Cookie` header, against a naive reading.

use hyper_session::__internals::pairs;

/// `pairs` reads what splitting and trimming reads, as slices of the input, in order; and reads its own output again.
pub fn cookie_header(data: &[u8]) {
    let read: Vec<_> = pairs(data).collect();
    let naive: Vec<_> = data
        .split(|byte| *byte == b';')
        .filter_map(|segment| {
            let equals = segment.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (trim(&segment[..equals]), trim(&segment[equals + 1..]));
            (!name.is_empty()).then_some((name, value))
        })
        .collect();
    assert_eq!(read, naive);

    let mut last = data.as_ptr_range().start;
    for (name, value) in &read {
        let (name, value) = (name.as_ptr_range(), value.as_ptr_range());
        assert!(
            name.start >= last
                && value.start > name.end.wrapping_sub(1)
                && value.end <= data.as_ptr_range().end
        );
        last = value.end;
    }

    let joined = read
        .iter()
        .map(|(name, value)| [name, &b"="[..], value].concat())
        .collect::<Vec<_>>()
        .join(&b"; "[..]);
    assert_eq!(pairs(&joined).collect::<Vec<_>>(), read, "reading what was read");
}

fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = bytes.iter().position(|byte| !blank(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

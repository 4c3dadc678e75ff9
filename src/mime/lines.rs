//! Lines, which end in CRLF.

/// The lines of `octets` with their ends. Only CRLF ends a line.
pub(super) fn lines(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = octets;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (line, others) = rest.split_at(line_end(rest));
        rest = others;
        Some(line)
    })
}

/// The length of the first line of `octets` with its end.
pub(super) fn line_end(octets: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', octets)
        .find(|&at| at > 0 && octets[at - 1] == b'\r')
        .map_or(octets.len(), |at| at + 1)
}

pub(super) fn without_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r\n").unwrap_or(line)
}

//! Searching for what ends a message: for receivers, and for the streams above.

/// Where several separators are searched, this much is looked through first, then twice as much, and so on: one
/// that never comes must not be searched in all that is buffered for each that does.
const FIRST_WINDOW: usize = 256;

/// The separator that ends first, at or after `from`: where it starts and where it ends. `count` is told how many
/// bytes each look has searched.
pub fn find_first_end(
    data: &[u8],
    from: usize,
    separators: &[&[u8]],
    mut count: impl FnMut(usize),
) -> Option<(usize, usize)> {
    let mut find = |data: &[u8], from: usize, separator: &[u8]| {
        let found = memchr::memmem::find(&data[from..], separator);
        let found = found.map(|place| (from + place, from + place + separator.len()));
        count(found.map_or(data.len(), |(_, end)| end) - from);
        found
    };
    if let [separator] = separators {
        return find(data, from, separator);
    }
    let longest = separators.iter().map(|separator| separator.len()).max()?;
    let (mut from, mut window) = (from, FIRST_WINDOW.max(2 * longest));
    loop {
        let seen = &data[..data.len().min(from + window)];
        let found = separators.iter().filter_map(|separator| find(seen, from, separator));
        // Of two that end together the longer one counts.
        let first = found.min_by_key(|(start, end)| (*end, *start));
        if first.is_some() || seen.len() == data.len() {
            return first;
        }
        from = seen.len() - (longest - 1);
        window *= 2;
    }
}

/// A length of `width` bytes at the front of `input`, its most significant byte first, and what is behind it.
pub fn length_prefix(input: &[u8], width: usize) -> Option<(u64, &[u8])> {
    let (head, rest) = input.split_at_checked(width)?;
    Some((head.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)), rest))
}

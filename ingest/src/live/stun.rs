//! Whom a datagram of an unknown address is for: the name in a STUN request (RFC 8489).

const HEADER: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: [u8; 2] = [0, 1];
const USERNAME: [u8; 2] = [0, 6];

/// The first part of the user name of a binding request: the `ice-ufrag` of the peer asked.
pub fn asked(datagram: &[u8]) -> Option<&str> {
    if datagram.get(..2)? != BINDING_REQUEST || datagram.get(4..8)? != COOKIE {
        return None;
    }
    let mut rest = datagram.get(HEADER..)?;
    loop {
        let length = usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]));
        let value = rest.get(4..4 + length)?;
        if rest[..2] == USERNAME {
            return std::str::from_utf8(value).ok()?.split(':').next();
        }
        rest = rest.get(4 + length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_behind_other_attributes_and_no_cut_is_fatal() {
        let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        request.extend([7; 12]);
        request.extend([0x80, 0x22, 0, 3, b'a', b'b', b'c', 0]);
        request.extend([0, 6, 0, 9]);
        request.extend(b"abcd:wxyz\0\0\0");
        assert_eq!(asked(&request), Some("abcd"));
        for cut in 0..request.len() - 3 {
            assert_eq!(asked(&request[..cut]), None, "cut at {cut}");
        }
        request[1] = 0x11;
        assert_eq!(asked(&request), None, "not a request");
    }
}

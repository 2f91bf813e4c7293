//! Decides which cameras of the file this process records if several share it (`[shard] pods`).
//!
//! PURE. Rendezvous hashing: each camera goes to the pod whose hash with its id is the largest. From 5 to 6 pods, a sixth of the
//! cameras move to the new pod, and none between the others. Never change the hash: an update would move most cameras.

/// Returns the number at the end of a host name, as pods of a StatefulSet have it. `None`: there is none.
pub fn ordinal(host: &str) -> Option<u32> {
    let digits = host.len() - host.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    host.get(host.len() - digits..)?.parse().ok()
}

/// Returns the pod, from 0, that records a camera.
pub fn pod_of(id: &str, pods: u32) -> u32 {
    (0..pods).max_by_key(|pod| (weight(id, *pod), *pod)).unwrap_or(0)
}

/// Returns the hash of a camera and a pod: FNV-1a over the id and the pod's number, then the finalizer of SplitMix64, because FNV
/// alone mixes its last bytes badly.
pub(crate) fn weight(id: &str, pod: u32) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in id.bytes().chain(pod.to_be_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> Vec<String> {
        (0..3000).map(|i| format!("store{}/cam{}", i / 8, i % 8)).collect()
    }

    #[test]
    fn the_number_at_the_end_of_the_host_name_is_the_pods() {
        assert_eq!(ordinal("recorder-0"), Some(0));
        assert_eq!(ordinal("recorder-12"), Some(12));
        assert_eq!(ordinal("nvr7"), Some(7));
        assert_eq!(ordinal("recorder"), None);
        assert_eq!(ordinal(""), None);
        assert_eq!(ordinal("host-99999999999"), None);
    }

    #[test]
    fn pods_get_equal_shares_and_one_more_pod_moves_only_its_own_share() {
        let ids = ids();
        let mut shares = [0usize; 6];
        let mut moved = 0;
        for id in &ids {
            let (five, six) = (pod_of(id, 5), pod_of(id, 6));
            shares[usize::try_from(six).unwrap()] += 1;
            if five != six {
                assert_eq!(six, 5, "to the new pod and to no other");
                moved += 1;
            }
        }
        assert!(shares.iter().all(|share| (400..600).contains(share)), "{shares:?}");
        assert!((400..600).contains(&moved), "{moved}");
        assert!(ids.iter().all(|id| pod_of(id, 1) == 0));
    }

    #[test]
    fn an_update_moves_no_camera() {
        let pods: Vec<u32> = ["cam1", "cam2", "store42/cam3", "é"].iter().map(|id| pod_of(id, 6)).collect();
        assert_eq!(pods, GOLDEN);
    }

    const GOLDEN: [u32; 4] = [5, 2, 3, 2];
}

//! Batches byte by byte, as engines of different versions send them.

use proptest::prelude::*;

use super::*;

fn stored(hashes: &[u64], size: u32) -> KvEvent {
    KvEvent::Stored(KvBlock {
        hashes: hashes.to_vec(),
        size,
    })
}

/// Fields in their order, hashes as numbers, a rank, fields of a later version, and kinds and memories that do not matter.
#[test]
fn arrays_are_read() {
    let batch = b"\x93\xcb?\xf8\x00\x00\x00\x00\x00\x00\x95\x9c\xabBlockStored\x93\x07\xfe\xcf\x80\x00\x00\x00\x00\x00\x00\x01\xc0\x93\x01\x02\x03\x10\xc0\xa3GPU\xc0\xc0\x00\xa4full\xa5later\x94\xacBlockRemoved\x91\x07\xa3GPU\x00\x93\xacBlockRemoved\x91\x08\xa3CPU\x91\xb0AllBlocksCleared\x92\xadAdapterLoaded\xa1x\x00";
    let wanted = [
        stored(&[7, u64::MAX - 1, (1 << 63) + 1], 16),
        KvEvent::Removed(vec![7]),
        KvEvent::Cleared,
    ];
    assert_eq!(read(batch).unwrap(), wanted);
    // The first versions told neither rank nor memory.
    let old = b"\x92\xcb\x00\x00\x00\x00\x00\x00\x00\x00\x92\x96\xabBlockStored\x91\x01\xc0\x91\x09@\xc0\x92\xacBlockRemoved\x91\x01";
    assert_eq!(
        read(old).unwrap(),
        [stored(&[1], 64), KvEvent::Removed(vec![1])]
    );
}

/// Fields by name in any order, defaults left out, hashes as bytes, another group of layers.
#[test]
fn maps_are_read() {
    let batch = b"\x82\xa2ts\xcb?\xf8\x00\x00\x00\x00\x00\x00\xa6events\x94\x86\xa4type\xabBlockStored\xacblock_hashes\x92\xc4\x02\x01\x02\xc4\x01\x03\xb1parent_block_hash\xc0\xa9token_ids\x90\xaablock_size \xa9group_idx\xc0\x83\xacblock_hashes\x91\xc4\x02\x01\x02\xa4type\xacBlockRemoved\xa5later\x81\xa1a\x91\x01\x84\xa4type\xabBlockStored\xacblock_hashes\x91\x05\xaablock_size \xa9group_idx\x01\x81\xa4type\xb0AllBlocksCleared";
    let events = read(batch).unwrap();
    let [
        KvEvent::Stored(block),
        KvEvent::Removed(removed),
        KvEvent::Cleared,
    ] = &*events
    else {
        panic!("{events:?}");
    };
    assert_eq!((block.hashes.len(), block.size), (2, 32));
    assert_eq!(removed[..], block.hashes[..1]);
    assert_ne!(block.hashes[0], block.hashes[1]);
}

#[test]
fn other_memories_than_the_devices_are_passed_over() {
    let tiers = b"\x92\xcb\x00\x00\x00\x00\x00\x00\x00\x00\x92\x97\xabBlockStored\x91\x01\xc0\x91\x09@\xc0\xaaCPU_PINNED\x97\xabBlockStored\x91\x01\xc0\x91\x09@\xc0\xa4DISK";
    assert_eq!(read(tiers).unwrap(), []);
    assert_eq!(read(b"\x93\x00\x90\xc0").unwrap(), []);
}

#[test]
fn what_is_no_batch_is_refused() {
    for wrong in [
        &b""[..],
        b"\x90",
        b"\x91\x00",
        b"\x80",
        b"\xa5hello",
        // An event without a kind, a hash that is none, a negative size.
        b"\x92\x00\x91\x90",
        b"\x92\x00\x91\x92\xacBlockRemoved\x91\xcb\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x92\x00\x91\x95\xabBlockStored\x91\x01\xc0\x90\xff",
        // Cut off, and lists that claim to be endless.
        b"\x92\x00\x91\x92\xacBlockRem",
        b"\x92\x00\xdd\xff\xff\xff\xff",
        b"\x92\x00\x91\x92\xacBlockRemoved\xdd\xff\xff\xff\xff\x01",
        b"\x92\x00\x91\x92\xc6\xff\xff\xff\xff",
    ] {
        assert!(read(wrong).is_err(), "{wrong:?}");
    }
    // Very deep.
    let deep = [&b"\x93\x00\x90"[..], &[0x91; 100_000]].concat();
    assert!(read(&deep).is_err());
}

proptest! {
    #[test]
    fn nothing_that_is_sent_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
        let _ = read(&[&b"\x92\x00\x91"[..], &bytes].concat());
        let _ = read(&[&b"\x92\x00\x91\x95\xabBlockStored\x91"[..], &bytes].concat());
    }
}

//! Weight files that nobody should be hurt by, byte by byte; for the tests of the library and of the program.

/// A zip file of these members: name, method (0 stored, 8 deflated), bytes as stored, size that is claimed.
pub fn zip(members: &[(&str, u16, &[u8], u32)]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for &(name, method, bytes, size) in members {
        let offset = file.len() as u32;
        let mut fields = vec![20, 0, 0, 0];
        fields.extend(method.to_le_bytes());
        fields.extend([0; 8]); // time, date, and a checksum of 0: none
        fields.extend((bytes.len() as u32).to_le_bytes());
        fields.extend(size.to_le_bytes());
        fields.extend((name.len() as u16).to_le_bytes());
        fields.extend([0; 2]);
        file.extend(b"PK\x03\x04");
        file.extend(&fields);
        file.extend(name.bytes());
        file.extend(bytes);
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&fields);
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.bytes());
    }
    let (count, offset) = (members.len() as u16, file.len() as u32);
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend(count.to_le_bytes());
    file.extend(count.to_le_bytes());
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(offset.to_le_bytes());
    file.extend([0; 2]);
    file
}

/// A file as PyTorch writes it now, with 64 bytes in its only storage.
pub fn torch_zip(pickle: &[u8]) -> Vec<u8> {
    zip(&[("a/data.pkl", 0, pickle, pickle.len() as u32), ("a/data/0", 0, &[0; 64], 64), ("a/version", 0, b"3\n", 2)])
}

/// A legacy file: the three headers, the object, an empty list of storages.
pub fn legacy(pickle: &[u8]) -> Vec<u8> {
    let mut file = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.".to_vec();
    file.extend(b"\x80\x02}X\x0d\0\0\0little_endian\x88s.");
    file.extend(pickle);
    file.extend(b"\x80\x02].");
    file
}

/// A string as a pickle holds it.
pub fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// `{key: value}` around the opcodes of a value.
pub fn dict(key: &str, value: &[u8]) -> Vec<u8> {
    [b"\x80\x02}", &text(key)[..], value, b"s."].concat()
}

/// A tensor of `numel` floats with a shape and strides of one axis, all as eight-byte integers.
pub fn tensor(numel: u64, extent: u64, stride: u64) -> Vec<u8> {
    let int = |value: u64| [&[0x8a, 8][..], &value.to_le_bytes()].concat();
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &text("storage")[..],
        b"ctorch\nFloatStorage\n",
        &text("0"),
        &text("cpu"),
        &int(numel),
        b"tQK\0(",
        &int(extent),
        b"t(",
        &int(stride),
        b"t\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

/// Deflated zeros, 158 to 1: fixed codes, a literal, then repeats of 258 bytes at distance 1.
pub fn deflated_zeros(repeats: usize) -> (Vec<u8>, u32) {
    let mut bits: Vec<u8> = vec![1, 1, 0]; // last block, fixed codes (least significant bit first)
    bits.extend([0, 0, 1, 1, 0, 0, 0, 0]); // the literal 0
    let repeat = [1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]; // length 258, distance 1
    bits.extend(std::iter::repeat_n(repeat, repeats).flatten());
    bits.extend([0; 7]);
    let bytes = bits.chunks(8).map(|chunk| chunk.iter().enumerate().fold(0, |byte, (index, bit)| byte | bit << index)).collect();
    (bytes, (1 + 258 * repeats) as u32)
}

/// A call of a function with one string, as the opcodes of a value.
pub fn call(module: &str, function: &str, argument: &str) -> Vec<u8> {
    [format!("c{module}\n{function}\n").as_bytes(), &text(argument), b"\x85R"].concat()
}

/// A safetensors file of this header and data.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

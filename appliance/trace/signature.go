package trace

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strings"
)

// A search must not read every record, and an index entry for each address of each message would cost several
// times what the record itself costs to write. So there is a signature of every record: the 32-bit hashes of
// all a search can ask of it (addresses, domains, device, client, states). Signatures lie together in blocks, in the
// order they were written; a search reads these, 30 to 40 bytes a message, and then only the records whose
// signature has every hash it looks for. What a hash lets through by chance is refused by Query.Match.
//
// A block, big-endian:
//
//	newest   8  highest id in this and all earlier blocks: a search from the newest block back knows by it
//	            when no newer record can follow
//	highest  8  highest id in this block
//	entries     id 8, number of hashes 2, hashes 4 each
const (
	blockHeader = 16
	entryHeader = 10

	// A new batch goes on in the last block while that is smaller than openBlock, so that one message a second does
	// not make one block a second; a block is full at fullBlock.
	openBlock = 4 << 10
	fullBlock = 64 << 10

	// maxHashes bounds an entry to 4 KiB; a message with more to find it by is let through by every search.
	maxHashes = 1024
	anyHash   = 0xffff
)

// The kinds of hashes.
const (
	hashAddress = 'a'
	hashDomain  = 'd'
	hashDevice  = 'n'
	hashClient  = 'c'
	hashState   = 's'
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// hasher makes hashes in a buffer of its own.
type hasher struct{ scratch []byte }

func (h *hasher) hash(kind byte, text string) uint32 {
	h.scratch = append(append(h.scratch[:0], kind), fold(text)...)
	return crc32.Checksum(h.scratch, castagnoli)
}

// fold makes texts that strings.EqualFold holds equal the same.
func fold(text string) string {
	for i := range len(text) {
		if text[i] >= 0x80 {
			// Upper first: some letters share an upper case that lower case keeps apart.
			return strings.ToLower(strings.ToUpper(text))
		}
	}
	return strings.ToLower(text)
}

// appendEntry appends the signature of a record.
func (h *hasher) appendEntry(block []byte, r *Record) []byte {
	var fixed [64]uint32
	hashes := h.appendHashes(fixed[:0], r)
	block = binary.BigEndian.AppendUint64(block, uint64(r.ID))
	if len(hashes) > maxHashes {
		return binary.BigEndian.AppendUint16(block, anyHash)
	}
	block = binary.BigEndian.AppendUint16(block, uint16(len(hashes)))
	for _, hash := range hashes {
		block = binary.BigEndian.AppendUint32(block, hash)
	}
	return block
}

func (h *hasher) appendHashes(hashes []uint32, r *Record) []uint32 {
	add := func(kind byte, text string) {
		hash := h.hash(kind, text)
		// In a long list a double costs less than looking for it.
		if len(hashes) > 32 || !slices.Contains(hashes, hash) {
			hashes = append(hashes, hash)
		}
	}
	addAddress := func(address string) {
		add(hashAddress, address)
		if at := strings.LastIndexByte(address, '@'); at >= 0 {
			add(hashDomain, address[at:])
		}
	}
	add(hashDevice, r.Device)
	add(hashClient, r.Client)
	for i := range r.Recipients {
		add(hashState, string(r.Recipients[i].State))
	}
	addAddress(r.Sender)
	for i := range r.Recipients {
		if len(hashes) > maxHashes {
			break
		}
		addAddress(r.Recipients[i].Address)
	}
	return hashes
}

// hashes gives what the signature of a wanted record must have.
func (q *Query) hashes() []uint32 {
	var h hasher
	var hashes []uint32
	if strings.HasPrefix(q.Address, "@") {
		hashes = append(hashes, h.hash(hashDomain, q.Address))
	} else if q.Address != "" {
		hashes = append(hashes, h.hash(hashAddress, q.Address))
	}
	if q.Device != "" {
		hashes = append(hashes, h.hash(hashDevice, q.Device))
	}
	if q.Client.IsValid() {
		hashes = append(hashes, h.hash(hashClient, q.Client.Unmap().String()))
	}
	if q.State != "" {
		hashes = append(hashes, h.hash(hashState, string(q.State)))
	}
	return hashes
}

// block reads what was stored; one that is damaged ends where it stops making sense.
type block []byte

func (b block) newest() ID {
	if len(b) < blockHeader {
		return 0
	}
	return ID(binary.BigEndian.Uint64(b))
}

func (b block) highest() ID {
	if len(b) < blockHeader {
		return 0
	}
	return ID(binary.BigEndian.Uint64(b[8:]))
}

// open tells whether entries may be appended to the block.
func (b block) open() bool { return len(b) >= blockHeader && len(b) < openBlock }

// find appends the ids, lowest to highest, whose signature has all the hashes.
func (b block) find(ids []ID, lowest, highest ID, wanted []uint32) []ID {
	if len(b) < blockHeader {
		return ids
	}
	for rest := b[blockHeader:]; len(rest) >= entryHeader; {
		id := ID(binary.BigEndian.Uint64(rest))
		count := int(binary.BigEndian.Uint16(rest[8:]))
		rest = rest[entryHeader:]
		everything := count == anyHash
		if everything {
			count = 0
		}
		if 4*count > len(rest) {
			break
		}
		if id >= lowest && id <= highest && (everything || hasAll(rest[:4*count], wanted)) {
			ids = append(ids, id)
		}
		rest = rest[4*count:]
	}
	return ids
}

func hasAll(hashes []byte, wanted []uint32) bool {
wanted:
	for _, want := range wanted {
		for i := 0; i+4 <= len(hashes); i += 4 {
			if binary.BigEndian.Uint32(hashes[i:]) == want {
				continue wanted
			}
		}
		return false
	}
	return true
}

package spool

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"runtime/debug"
	"slices"

	"golang.org/x/sys/unix"
)

// bbolt panics on a page it does not understand, at open even in a goroutine of its own, where nobody can recover. So the
// file is walked here first, by a reader that trusts nothing. The format is bbolt's version 2, little-endian:
//
//	page     id 8, flags 2, count 2, overflow 4, then elements; it is 1 + overflow pages long
//	branch   element: position 4, key size 4, child page 8; the position counts from the element
//	leaf     element: flags 4 (1: a bucket), position 4, key size 4, value size 4
//	bucket   value: root page 8, sequence 8; root 0: a page follows in the value
//	meta     (pages 0 and 1, behind the header) magic 4, version 4, page size 4, flags 4, root bucket 16, free list 8,
//	         end 8, transaction 8, FNV-1a of what precedes 8
const (
	pageHeader    = 16
	pageElement   = 16
	bucketHeader  = 16
	metaSize      = 64
	boltMagic     = 0xED0CDAED
	boltVersion   = 2
	flagBranch    = 1
	flagLeaf      = 2
	elementBucket = 1
	maxDepth      = 64
)

// pages is a bbolt file that may be damaged, mapped into memory.
type pages struct {
	data     []byte
	pageSize int
	metas    []meta          // the sound ones, the newest first
	damage   []error         // found by walk
	bucket   string          // being walked; empty: the root
	harmed   map[string]bool // buckets with damage
	seen     map[uint64]bool
}

type meta struct{ root, end, transaction uint64 }

func openPages(path string) (*pages, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	p := &pages{pageSize: os.Getpagesize(), seen: make(map[uint64]bool), harmed: make(map[string]bool)}
	if info.Size() > 0 {
		if p.data, err = unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED); err != nil {
			return nil, fmt.Errorf("map %s: %w", path, err)
		}
	}
	p.readMetas()
	return p, nil
}

func (p *pages) close() {
	if p.data != nil {
		unix.Munmap(p.data)
	}
}

func (p *pages) readMetas() {
	for _, at := range []int{0, p.pageSize} {
		start := at + pageHeader
		if start+metaSize > len(p.data) {
			continue
		}
		m := p.data[start : start+metaSize]
		sum := fnv.New64a()
		sum.Write(m[:metaSize-8])
		if binary.LittleEndian.Uint32(m) != boltMagic || binary.LittleEndian.Uint32(m[4:]) != boltVersion ||
			int(binary.LittleEndian.Uint32(m[8:])) != p.pageSize || sum.Sum64() != binary.LittleEndian.Uint64(m[metaSize-8:]) {
			continue
		}
		p.metas = append(p.metas, meta{
			root: binary.LittleEndian.Uint64(m[16:]), end: binary.LittleEndian.Uint64(m[40:]), transaction: binary.LittleEndian.Uint64(m[48:]),
		})
	}
	slices.SortFunc(p.metas, func(a, b meta) int { return cmp.Compare(b.transaction, a.transaction) })
}

// count is the number of pages in the file.
func (p *pages) count() uint64 { return uint64(len(p.data) / p.pageSize) }

// page gives a page whole, once it looks like one.
func (p *pages) page(id uint64) ([]byte, error) {
	if id >= p.count() {
		return nil, fmt.Errorf("page %d: the file ends at page %d", id, p.count())
	}
	start := int(id) * p.pageSize
	header := p.data[start : start+pageHeader]
	if stored := binary.LittleEndian.Uint64(header); stored != id {
		return nil, fmt.Errorf("page %d: it says it is page %d", id, stored)
	}
	length := (1 + uint64(binary.LittleEndian.Uint32(header[12:]))) * uint64(p.pageSize)
	if uint64(start)+length > uint64(len(p.data)) {
		return nil, fmt.Errorf("page %d: %d bytes long, beyond the end of the file", id, length)
	}
	return p.data[start : start+int(length)], nil
}

// element is one key of a leaf. key and value lie in the mapped file.
type element struct {
	bucket     bool
	key, value []byte
}

// elements reads a leaf page; what is not readable is left out and said.
func elements(page []byte) (list []element, err error) {
	count := int(binary.LittleEndian.Uint16(page[10:]))
	for i := range count {
		at := pageHeader + i*pageElement
		if at+pageElement > len(page) {
			return list, fmt.Errorf("%d elements do not fit into it", count)
		}
		head := page[at:]
		position, key, value := uint64(binary.LittleEndian.Uint32(head[4:])), uint64(binary.LittleEndian.Uint32(head[8:])), uint64(binary.LittleEndian.Uint32(head[12:]))
		start := uint64(at) + position
		if start+key+value > uint64(len(page)) {
			err = errors.Join(err, fmt.Errorf("element %d lies outside of it", i))
			continue
		}
		list = append(list, element{
			bucket: binary.LittleEndian.Uint32(head)&elementBucket != 0,
			key:    page[start : start+key], value: page[start+key : start+key+value],
		})
	}
	for i := 1; i < len(list); i++ {
		if bytes.Compare(list[i-1].key, list[i].key) >= 0 {
			return list, errors.Join(err, fmt.Errorf("its keys are not in order at element %d", i))
		}
	}
	return list, err
}

// walk visits the leaf elements of a tree in order, going on behind what is damaged.
func (p *pages) walk(root uint64, depth int, visit func(element)) {
	if p.seen[root] || depth > maxDepth {
		p.harm(fmt.Errorf("page %d: it is used twice", root))
		return
	}
	p.seen[root] = true
	page, err := p.page(root)
	if err != nil {
		p.harm(err)
		return
	}
	switch flags := binary.LittleEndian.Uint16(page[8:]); flags {
	case flagLeaf:
		list, err := elements(page)
		if err != nil {
			p.harm(fmt.Errorf("page %d: %w", root, err))
		}
		for _, e := range list {
			visit(e)
		}
	case flagBranch:
		p.walkBranch(root, page, depth, visit)
	default:
		p.harm(fmt.Errorf("page %d: neither branch nor leaf (flags %#x)", root, flags))
	}
}

func (p *pages) walkBranch(id uint64, page []byte, depth int, visit func(element)) {
	count := int(binary.LittleEndian.Uint16(page[10:]))
	if count == 0 {
		p.harm(fmt.Errorf("page %d: a branch without children", id))
	}
	var last []byte
	for i := range count {
		at := pageHeader + i*pageElement
		if at+pageElement > len(page) {
			p.harm(fmt.Errorf("page %d: %d elements do not fit into it", id, count))
			return
		}
		start := uint64(at) + uint64(binary.LittleEndian.Uint32(page[at:]))
		end := start + uint64(binary.LittleEndian.Uint32(page[at+4:]))
		switch {
		case end > uint64(len(page)):
			p.harm(fmt.Errorf("page %d: element %d lies outside of it", id, i))
		case i > 0 && bytes.Compare(last, page[start:end]) >= 0:
			p.harm(fmt.Errorf("page %d: its keys are not in order at element %d", id, i))
		default:
			last = page[start:end]
		}
		p.walk(binary.LittleEndian.Uint64(page[at+8:]), depth+1, visit)
	}
}

func (p *pages) harm(err error) {
	p.harmed[p.bucket] = true
	const most = 1000
	if len(p.damage) < most {
		p.damage = append(p.damage, err)
	}
}

// buckets finds the buckets of the newest sound transaction and gives visitors their elements. It returns false where
// there is none.
func (p *pages) buckets(visit func(name string, e element)) bool {
	if len(p.metas) == 0 {
		p.harm(errors.New("neither of the two first pages is sound"))
		return false
	}
	if len(p.metas) == 2 && p.metas[0].end > p.count() {
		p.harm(fmt.Errorf("the file has %d pages, %d were written", p.count(), p.metas[0].end))
	}
	p.walk(p.metas[0].root, 0, func(e element) {
		name := string(e.key)
		if !e.bucket || len(e.value) < bucketHeader {
			p.harm(fmt.Errorf("bucket %q: not a bucket", name))
			return
		}
		p.bucket = name
		defer func() { p.bucket = "" }()
		inside := func(e element) { visit(name, e) }
		if root := binary.LittleEndian.Uint64(e.value); root != 0 {
			p.walk(root, 0, inside)
			return
		}
		page := e.value[bucketHeader:]
		if len(page) < pageHeader {
			p.harm(fmt.Errorf("bucket %q: %d bytes", name, len(page)))
			return
		}
		list, err := elements(page)
		if err != nil {
			p.harm(fmt.Errorf("bucket %q: %w", name, err))
		}
		for _, e := range list {
			inside(e)
		}
	})
	return true
}

// check walks the whole file and tells what is wrong with it; nil: bbolt can open it.
func check(path string) (err error) {
	defer func() { // a sector that cannot be read
		if failure := recover(); failure != nil {
			err = fmt.Errorf("read %s: %v", path, failure)
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	p, err := openPages(path)
	if err != nil {
		return err
	}
	defer p.close()
	if len(p.data) == 0 {
		return nil // bbolt makes it
	}
	p.buckets(func(string, element) {})
	return errors.Join(p.damage...)
}

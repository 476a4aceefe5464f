// Package boltfile finds out whether a bbolt file is whole before bbolt opens it. bbolt v1.5.0 walks a file
// without a synced freelist in a goroutine of its own, where a damaged page is a panic, a fault of the memory map, or
// an endless recursion that nobody can recover: the box would die at each start instead of setting the file aside.
package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

var (
	// ErrDamaged: the file is not one that bbolt could read through. The error that wraps it says what was found
	// where.
	ErrDamaged = errors.New("damaged")
	// ErrInUse: another process has the file open for writing.
	ErrInUse = errors.New("in use by another process")
)

// Verify reads every page of the bbolt file at path that bbolt would read when it opens and walks the file: all
// but the second and further pages of large values. It returns nil where there is no file, or an empty one, which bbolt
// begins anew; an error that wraps ErrDamaged or ErrInUse; or the error that kept it from reading.
func Verify(path string) error {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	// bbolt's own lock, so that nobody writes meanwhile; it goes with the file.
	if err := unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%s is %w", path, ErrInUse)
	} else if err != nil {
		return fmt.Errorf("locking %s: %w", path, err)
	}
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file but %s", path, info.Mode().Type())
	}
	if int64(int(info.Size())) != info.Size() {
		return fmt.Errorf("%s has %d bytes, more than this machine can address", path, info.Size())
	}
	content, err := unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping %s into memory: %w", path, err)
	}
	defer unix.Munmap(content)
	if err := verify(content); err != nil {
		return fmt.Errorf("%s is %w", path, err)
	}
	return nil
}

// verify does it for the content of a file.
func verify(content []byte) (err error) {
	// A sector the disk cannot read is a fault of the map.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if found := recover(); found != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, found)
		}
	}()
	meta, ok := findMeta(content)
	if !ok {
		return fmt.Errorf("%w: neither of its two meta pages is whole", ErrDamaged)
	}
	if size := uint64(len(content)); meta.pages > size/meta.pageSize {
		return fmt.Errorf("%w: it was cut off: it has %d bytes and should have %d pages of %d", ErrDamaged, size, meta.pages, meta.pageSize)
	}
	w := walk{content: content, meta: meta, seen: make([]bool, meta.pages)}
	w.take(0, 0)
	w.take(1, 0)
	if meta.freelist != noFreelist {
		w.freelist(meta.freelist)
	}
	w.tree(meta.root, nil, nil)
	return nil
}

// The file format of bbolt, version 2; numbers are in the machine's byte order.
//
//	page     id 8, flags 2, count 2, overflow 4 (pages that follow as a part of this one), then elements
//	branch   an element: pos 4 (of the key, from the element on), key size 4, page id 8
//	leaf     an element: flags 4, pos 4, key size 4, value size 4; the value lies behind the key
//	bucket   a leaf's value with flag 1: root page id 8, sequence 8; with root 0 a leaf page follows, inline
//	meta     magic 4, version 4, page size 4, flags 4, root bucket 16, freelist 8, pages 8, transaction 8,
//	         FNV-1a of all this 8
const (
	pageHeader   = 16
	elementSize  = 16
	bucketHeader = 16
	metaSize     = 64

	magic      = 0xED0CDAED
	version    = 2
	noFreelist = ^uint64(0)

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10

	bucketElement = 0x01
)

var order = binary.NativeEndian

type meta struct {
	pageSize, root, freelist, pages, transaction uint64
}

// findMeta gives the newest whole meta page, as bbolt takes it.
func findMeta(content []byte) (newest meta, ok bool) {
	consider := func(offset uint64) {
		if found, valid := readMeta(content, offset); valid && (!ok || found.transaction > newest.transaction) {
			newest, ok = found, true
		}
	}
	consider(0)
	if ok {
		consider(newest.pageSize)
		return newest, ok
	}
	for size := uint64(1 << 10); size <= 1<<24 && !ok; size <<= 1 {
		consider(size)
	}
	return newest, ok
}

func readMeta(content []byte, offset uint64) (meta, bool) {
	if uint64(len(content)) < offset+pageHeader+metaSize {
		return meta{}, false
	}
	raw := content[offset+pageHeader:][:metaSize]
	sum := fnv.New64a()
	sum.Write(raw[:metaSize-8])
	m := meta{
		pageSize:    uint64(order.Uint32(raw[8:])),
		root:        order.Uint64(raw[16:]),
		freelist:    order.Uint64(raw[32:]),
		pages:       order.Uint64(raw[40:]),
		transaction: order.Uint64(raw[48:]),
	}
	valid := order.Uint32(raw) == magic && order.Uint32(raw[4:]) == version && order.Uint64(raw[56:]) == sum.Sum64() &&
		m.pageSize >= 1<<10 && m.pageSize&(m.pageSize-1) == 0 && (offset == 0 || offset == m.pageSize)
	return m, valid
}

// walk visits the pages of a file. What it finds wrong it panics with, as an index out of the content does.
type walk struct {
	content []byte
	meta    meta
	seen    []bool
}

// take marks a page and those that belong to it, each of which may be met once.
func (w *walk) take(id, overflow uint64) {
	for ; ; id++ {
		if id >= w.meta.pages {
			panic(fmt.Sprintf("page %d is beyond the last one, %d", id, w.meta.pages-1))
		}
		if w.seen[id] {
			panic(fmt.Sprintf("page %d is used twice", id))
		}
		w.seen[id] = true
		if overflow == 0 {
			return
		}
		overflow--
	}
}

// page gives a page with those that belong to it.
func (w *walk) page(id uint64) page {
	if id >= w.meta.pages {
		panic(fmt.Sprintf("page %d is beyond the last one, %d", id, w.meta.pages-1))
	}
	start := id * w.meta.pageSize
	p := page{w.content[start : start+w.meta.pageSize]}
	if found := order.Uint64(p.raw); found != id {
		panic(fmt.Sprintf("page %d calls itself %d", id, found))
	}
	overflow := uint64(order.Uint32(p.raw[12:]))
	w.take(id, overflow)
	p.raw = w.content[start : start+(1+overflow)*w.meta.pageSize]
	return p
}

func (w *walk) freelist(id uint64) {
	p := w.page(id)
	if p.flags() != freelistPage {
		panic(fmt.Sprintf("page %d has flags %#x: no freelist", id, p.flags()))
	}
	count, listed := uint64(p.count()), p.raw[pageHeader:]
	if count == 0xffff { // a longer list begins with its length
		count, listed = order.Uint64(listed), listed[8:]
	}
	if count > uint64(len(listed)/8) {
		panic(fmt.Sprintf("page %d: a freelist of %d pages does not fit into it", id, count))
	}
	for i := range count {
		w.take(order.Uint64(listed[8*i:]), 0)
	}
}

// tree visits the page with this id and what is below; its keys are at least low and less than high, where set.
func (w *walk) tree(id uint64, low, high []byte) {
	p := w.page(id)
	switch p.flags() {
	case leafPage:
		w.leaf(p, low, high)
	case branchPage:
		w.branch(p, low, high)
	default:
		panic(fmt.Sprintf("page %d has flags %#x: neither branch nor leaf", id, p.flags()))
	}
}

func (w *walk) branch(p page, low, high []byte) {
	if p.count() == 0 {
		panic(fmt.Sprintf("page %d: a branch without a leaf", order.Uint64(p.raw)))
	}
	for i := range p.count() {
		key, until := p.branchKey(i), high
		checkOrder(low, key, high)
		if i+1 < p.count() {
			if until = p.branchKey(i + 1); bytes.Compare(key, until) >= 0 {
				panic(fmt.Sprintf("page %d: key %d is not in order", order.Uint64(p.raw), i+1))
			}
		}
		w.tree(order.Uint64(p.element(i)[8:]), key, until)
	}
}

func (w *walk) leaf(p page, low, high []byte) {
	var before []byte
	for i := range p.count() {
		flags, key, value := p.leafElement(i)
		checkOrder(low, key, high)
		if i > 0 && bytes.Compare(before, key) >= 0 {
			panic(fmt.Sprintf("page %d: key %d is not in order", order.Uint64(p.raw), i))
		}
		before = key
		if flags&bucketElement == 0 {
			continue
		}
		if root := order.Uint64(value[:bucketHeader]); root != 0 {
			w.tree(root, nil, nil)
		} else {
			inline := page{value[bucketHeader:]}
			if inline.flags() != leafPage {
				panic(fmt.Sprintf("page %d: an inline bucket has flags %#x", order.Uint64(p.raw), inline.flags()))
			}
			w.leaf(inline, nil, nil)
		}
	}
}

func checkOrder(low, key, high []byte) {
	if low != nil && bytes.Compare(low, key) > 0 || high != nil && bytes.Compare(key, high) >= 0 {
		panic(fmt.Sprintf("key %x is not between %x and %x", key, low, high))
	}
}

// page is the bytes of a page; an index out of them panics.
type page struct{ raw []byte }

func (p page) flags() uint16 { return order.Uint16(p.raw[8:]) }
func (p page) count() int    { return int(order.Uint16(p.raw[10:])) }

// element gives everything from the element on, as positions count from there.
func (p page) element(i int) []byte { return p.raw[pageHeader+i*elementSize:] }

func (p page) branchKey(i int) []byte {
	element := p.element(i)
	return part(element, uint64(order.Uint32(element)), uint64(order.Uint32(element[4:])))
}

func (p page) leafElement(i int) (flags uint32, key, value []byte) {
	element := p.element(i)
	flags = order.Uint32(element)
	pos, keySize, valueSize := uint64(order.Uint32(element[4:])), uint64(order.Uint32(element[8:])), uint64(order.Uint32(element[12:]))
	return flags, part(element, pos, keySize), part(element, pos+keySize, valueSize)
}

// part is a slice whose bounds are compared as 64-bit numbers, on 32-bit machines too.
func part(raw []byte, start, length uint64) []byte {
	if start+length > uint64(len(raw)) {
		panic(fmt.Sprintf("%d bytes at %d reach beyond the page", length, start))
	}
	return raw[start : start+length]
}

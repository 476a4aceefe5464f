// Package boltfile reads bbolt files that may be damaged. bbolt v1.5.0 walks a file without a synced freelist in a
// goroutine of its own, where a damaged page is a panic, a fault of the memory map, or an endless recursion that nobody
// can recover: the box would die at each start instead of setting the file aside. So a file is verified here first, and
// what is readable in a damaged one can be taken out.
package boltfile

import (
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

var (
	// ErrDamaged: the file is not one that bbolt could read through. The error that wraps it says what was found
	// where.
	ErrDamaged = errors.New("damaged")
	// ErrInUse: another process has the file open for writing.
	ErrInUse = errors.New("in use by another process")
)

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

// File is a bbolt file mapped into memory. Its state is that of the newest transaction whose meta page is whole.
type File struct {
	content []byte
	meta    meta
	found   bool            // a meta page is whole
	seen    []bool          // pages that belong to the tree, known after Each
	damage  []error         // found by Each
	harmed  map[string]bool // top-level buckets with damage; "": above them
	bucket  string          // being walked
}

type meta struct {
	pageSize, root, freelist, pages, transaction uint64
}

// Open maps a file. The error wraps ErrInUse or is the one that kept it from reading; a damaged file can be opened.
// Elements that Each and Strays give lie in the map, until Close.
func Open(path string) (*File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	// bbolt's own lock, so that nobody writes at this moment; it goes with the file.
	if err := unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s is %w", path, ErrInUse)
	} else if err != nil {
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file but %s", path, info.Mode().Type())
	}
	if int64(int(info.Size())) != info.Size() {
		return nil, fmt.Errorf("%s has %d bytes, more than this machine can address", path, info.Size())
	}
	f := &File{harmed: make(map[string]bool)}
	if info.Size() == 0 {
		return f, nil
	}
	if f.content, err = unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("mapping %s into memory: %w", path, err)
	}
	f.readMetas()
	return f, nil
}

// Close ends the map.
func (f *File) Close() error {
	if f.content == nil {
		return nil
	}
	return unix.Munmap(f.content)
}

// Protect runs what reads the map, elements of it included: a sector the disk cannot read is a fault, and becomes an
// error that wraps ErrDamaged.
func Protect(run func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, fault)
		}
	}()
	run()
	return nil
}

// readMetas takes the newest whole meta page, as bbolt does. Where both are gone, the page size is the machine's.
func (f *File) readMetas() {
	var metas []meta
	consider := func(offset uint64) {
		_ = Protect(func() { // one that cannot be read is not whole
			if found, ok := f.readMeta(offset); ok {
				metas = append(metas, found)
			}
		})
	}
	if consider(0); len(metas) > 0 {
		consider(metas[0].pageSize)
	} else {
		for size := uint64(1 << 10); size <= 1<<24 && len(metas) == 0; size <<= 1 {
			consider(size)
		}
	}
	if f.found = len(metas) > 0; !f.found {
		f.meta.pageSize = uint64(os.Getpagesize())
		f.meta.pages = uint64(len(f.content)) / f.meta.pageSize
		return
	}
	f.meta = slices.MaxFunc(metas, func(a, b meta) int { return cmp.Compare(a.transaction, b.transaction) })
}

func (f *File) readMeta(offset uint64) (meta, bool) {
	if uint64(len(f.content)) < offset+pageHeader+metaSize {
		return meta{}, false
	}
	raw := f.content[offset+pageHeader:][:metaSize]
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

// present is the number of pages that are whole in the file.
func (f *File) present() uint64 { return uint64(len(f.content)) / f.meta.pageSize }

// page is the bytes of a page, those that belong to it included.
type page struct{ raw []byte }

// page gives a page once it looks like one.
func (f *File) page(id uint64) (page, error) {
	if id >= f.present() {
		return page{}, fmt.Errorf("page %d is beyond the end of the file, %d", id, f.present())
	}
	start := id * f.meta.pageSize
	p := page{f.content[start : start+f.meta.pageSize]}
	if stored := order.Uint64(p.raw); stored != id {
		return page{}, fmt.Errorf("page %d calls itself %d", id, stored)
	}
	length := (1 + p.overflow()) * f.meta.pageSize
	if length > uint64(len(f.content))-start {
		return page{}, fmt.Errorf("page %d has %d bytes, beyond the end of the file", id, length)
	}
	return page{f.content[start : start+length]}, nil
}

func (p page) flags() uint16    { return order.Uint16(p.raw[8:]) }
func (p page) count() int       { return int(order.Uint16(p.raw[10:])) }
func (p page) overflow() uint64 { return uint64(order.Uint32(p.raw[12:])) }

// element gives everything from the element on, as positions count from there; nil where it is not in the page.
func (p page) element(i int) []byte {
	at := pageHeader + i*elementSize
	if at+elementSize > len(p.raw) {
		return nil
	}
	return p.raw[at:]
}

func (p page) branchElement(i int) (key []byte, child uint64, ok bool) {
	element := p.element(i)
	if element == nil {
		return nil, 0, false
	}
	key, ok = part(element, uint64(order.Uint32(element)), uint64(order.Uint32(element[4:])))
	return key, order.Uint64(element[8:]), ok
}

func (p page) leafElement(i int) (isBucket bool, key, value []byte, ok bool) {
	element := p.element(i)
	if element == nil {
		return false, nil, nil, false
	}
	pos, keySize, valueSize := uint64(order.Uint32(element[4:])), uint64(order.Uint32(element[8:])), uint64(order.Uint32(element[12:]))
	key, keyOK := part(element, pos, keySize)
	value, valueOK := part(element, pos+keySize, valueSize)
	return order.Uint32(element)&bucketElement != 0, key, value, keyOK && valueOK
}

// part is a slice whose bounds are compared as 64-bit numbers, on 32-bit machines too.
func part(raw []byte, start, length uint64) ([]byte, bool) {
	if start+length > uint64(len(raw)) {
		return nil, false
	}
	return raw[start : start+length], true
}

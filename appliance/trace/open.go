package trace

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"mailchute/appliance/boltfile"
)

// openFile opens a bbolt file for writing; the error wraps boltfile.ErrDamaged where the file is at fault.
func openFile(path string) (*bbolt.DB, error) {
	err := boltfile.Verify(path)
	if errors.Is(err, boltfile.ErrInUse) {
		return nil, fmt.Errorf("%w: another mailchute runs on this state folder; stop that one first", err)
	}
	if err != nil {
		return nil, err
	}
	return bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:        time.Second,
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
	})
}

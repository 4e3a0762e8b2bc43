package ipsecconf

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"spigot/sad"
	"spigot/spd"
)

// Config is what a configuration says.
type Config struct {
	// Policies are in the order in which they are to be tried. Their ID is 0:
	// the caller numbers them. An inbound policy's template names the SA as its
	// packets show it: Src is the peer.
	Policies []*spd.Policy
	// SAs hold keys; the caller wipes them after use.
	SAs []*sad.Params
	// Warnings are for people: file, line, column, and what to do.
	Warnings []string
}

// Bounds of what is read.
const (
	maxFile     = 32 << 20 // bytes of a file
	maxKeyFile  = 4096
	maxIncludes = 16 // files that include each other
	maxFiles    = 1024
)

// readSecret are the permission bits that a file with keys must not have.
const readSecret = 0o077

// Parse reads the configuration in the file path and those that it includes.
// The error is an Errors if the text is at fault, and there is no Config then.
func Parse(path string) (*Config, error) {
	return parse(osFiles{}, path, nil)
}

// ParseFS is Parse within a file system, whose names are as fs.ValidPath has
// them.
func ParseFS(fsys fs.FS, name string) (*Config, error) {
	return parse(fsFiles{fsys}, name, nil)
}

// ParseReader is Parse of a text that comes from r. Name stands for it in errors,
// and files that it names are relative to name's directory.
func ParseReader(r io.Reader, name string) (*Config, error) {
	data, err := readAll(r, maxFile)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return parse(osFiles{}, name, &file{data: data, mode: 0o600})
}

// file is what was read of a file.
type file struct {
	data []byte
	mode fs.FileMode
}

// files is where files come from.
type files interface {
	// read returns the file, which must be a regular one of at most limit bytes.
	read(name string, limit int64) (*file, error)
	// relative returns the name of a file as another file names it.
	relative(from, name string) string
}

type osFiles struct{}

func (osFiles) read(name string, limit int64) (*file, error) {
	// A FIFO without a writer must not hang us.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return readFile(f, name, limit)
}

func (osFiles) relative(from, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(from), name)
}

type fsFiles struct{ fs.FS }

func (f fsFiles) read(name string, limit int64) (*file, error) {
	h, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	return readFile(h, name, limit)
}

func (fsFiles) relative(from, name string) string { return path.Join(path.Dir(from), name) }

// readFile reads f and closes it.
func readFile(f fs.File, name string, limit int64) (*file, error) {
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	data, err := readAll(f, limit)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return &file{data, st.Mode()}, nil
}

func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("longer than %d bytes", limit)
	}
	return data, nil
}

// parser reads one configuration.
type parser struct {
	files
	macros  macros
	config  Config
	errs    Errors
	reading []string // files that are being read, outermost first
	opened  int
	mode    fs.FileMode // of the file that is being read
	seen    seen
}

// parse reads the file name, or f in its place.
func parse(from files, name string, f *file) (*Config, error) {
	p := &parser{files: from, macros: macros{map[string]string{}, maxMacroWords}, seen: newSeen()}
	if f == nil {
		var err error
		if f, err = from.read(name, maxFile); err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
	}
	p.file(name, f)
	if len(p.errs) > 0 {
		return nil, p.errs
	}
	return &p.config, nil
}

// file reads the statements of f.
func (p *parser) file(name string, f *file) {
	p.reading = append(p.reading, name)
	before := p.mode
	p.mode = f.mode
	l := &lexer{text: string(f.data), pos: Position{name, 1, 1}, macros: &p.macros}
	for !p.full() {
		toks, err := l.statement()
		if err == nil {
			if toks[0].kind == end {
				break
			}
			err = p.statement(&cursor{toks: toks})
		}
		if err != nil {
			p.fail(err)
		}
	}
	p.mode = before
	p.reading = p.reading[:len(p.reading)-1]
}

// full says whether reading on makes no sense: there are enough errors, or no
// more words are allowed.
func (p *parser) full() bool { return len(p.errs) > maxErrors || p.macros.left < 0 }

// fail notes an error.
func (p *parser) fail(err *Error) {
	if len(p.errs) == maxErrors {
		err = errorAt(err.Position, "more than %d errors: mend those first", maxErrors)
	}
	if len(p.errs) <= maxErrors {
		p.errs = append(p.errs, err)
	}
}

// warn notes a warning.
func (p *parser) warn(pos Position, format string, args ...any) {
	p.config.Warnings = append(p.config.Warnings, pos.String()+": "+fmt.Sprintf(format, args...))
}

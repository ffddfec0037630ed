package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"holdfast/cmd/holdfast/internal/strict"
)

// RunDir and DataDir return only where sockets and data are, for looking at
// what daemons of an earlier version of the file do or left: mistakes elsewhere
// in it do not matter.
func RunDir(path string, read Files) (string, error) {
	return directory(path, read, "run", Default().Run)
}

// DataDir is like RunDir.
func DataDir(path string, read Files) (string, error) {
	return directory(path, read, "data", Default().Data)
}

func directory(path string, read Files, key, otherwise string) (string, error) {
	text, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return otherwise, nil
	}
	if err != nil {
		return "", fmt.Errorf("configuration: %w", err)
	}
	doc, err := strict.Parse(path, text)
	if err != nil {
		return "", err
	}
	v, ok := doc.Tree()[key]
	if !ok {
		return otherwise, nil
	}
	dir, ok := v.(string)
	if !ok || !filepath.IsAbs(dir) {
		doc.Add(key, "%s is not an absolute path", strict.Show(v))
	}
	return dir, doc.Err()
}

// secret is printed instead of what must not be seen.
const secret = "(not shown)"

// Show returns the configuration in force as plain values, under the keys of
// the file. What looks like a secret is not in it.
func (c *Config) Show() map[string]any { return plain(reflect.ValueOf(*c)).(map[string]any) }

// Text returns the configuration in force as TOML.
func (c *Config) Text() ([]byte, error) {
	var b bytes.Buffer
	e := toml.NewEncoder(&b)
	e.SetIndentTables(false)
	err := e.Encode(c.Show())
	return b.Bytes(), err
}

func plain(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case strict.Duration:
		return x.String()
	case strict.Size:
		return x.String()
	case Route:
		return map[string]any{"route": x.Text, "priority": int(x.Priority), "time_to_live": x.TimeToLive.String()}
	case Class:
		return map[string]any{"period": x.Period.String(), "timeout": x.Timeout.String(), "heartbeat": x.Heartbeat.String()}
	}
	switch v.Kind() {
	case reflect.Struct:
		return plainStruct(v)
	case reflect.Map:
		out := map[string]any{}
		for it := v.MapRange(); it.Next(); {
			out[it.Key().String()] = hide(it.Key().String(), plain(it.Value()))
		}
		return out
	case reflect.Slice:
		out := make([]any, v.Len())
		for i := range out {
			out[i] = plain(v.Index(i))
		}
		return out
	case reflect.Interface:
		return plain(v.Elem())
	}
	return v.Interface()
}

func plainStruct(v reflect.Value) map[string]any {
	out := map[string]any{}
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("toml")
		switch {
		case key == "" || key == "-":
		case key == ",rest":
			for it := v.Field(i).MapRange(); it.Next(); {
				out[it.Key().String()] = hide(it.Key().String(), plain(it.Value()))
			}
		case v.Field(i).Kind() == reflect.Slice && v.Field(i).Len() == 0:
		default:
			out[key] = hide(key, plain(v.Field(i)))
		}
	}
	return out
}

// hide keeps passwords and keys off the screen; the name of a key's file may be
// seen.
func hide(key string, v any) any {
	for _, word := range []string{"password", "secret", "token"} {
		if s, ok := v.(string); ok && s != "" && strings.Contains(key, word) && !strings.HasSuffix(key, "_file") {
			return secret
		}
	}
	return v
}

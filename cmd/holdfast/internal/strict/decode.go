package strict

import (
	"fmt"
	"math"
	"reflect"
	"sort"
	"strings"
)

// A Value decodes itself from a plain TOML value. The error's text follows the
// key, such as `"5" has no unit`; a second line is its hint.
type Value interface {
	DecodeTOML(v any) error
}

// Decode fills the struct that dst points to and records every mistake.
// Fields are named by their toml tag; a field tagged ",rest", of type
// map[string]any, takes all keys that no other field knows. What the file does
// not mention keeps its value, so defaults are set beforehand.
func (d *Document) Decode(dst any) {
	d.decode("", d.tree, reflect.ValueOf(dst).Elem())
}

// DecodeTable is Decode for the table at a path, given as plain TOML values.
func (d *Document) DecodeTable(path string, table map[string]any, dst any) {
	d.decode(path, table, reflect.ValueOf(dst).Elem())
}

func (d *Document) decode(path string, src any, dst reflect.Value) {
	if v, ok := dst.Addr().Interface().(Value); ok {
		if err := v.DecodeTOML(src); err != nil {
			d.Add(path, "%s", err)
		}
		return
	}
	switch dst.Kind() {
	case reflect.Pointer:
		v := reflect.New(dst.Type().Elem())
		d.decode(path, src, v.Elem())
		dst.Set(v)
	case reflect.Struct:
		if t, ok := src.(map[string]any); ok {
			d.table(path, t, dst)
		} else {
			d.wrong(path, "a table", src)
		}
	case reflect.Map:
		d.dictionary(path, src, dst)
	case reflect.Slice:
		d.list(path, src, dst)
	default:
		d.scalar(path, src, dst)
	}
}

func (d *Document) table(path string, src map[string]any, dst reflect.Value) {
	fields, rest := fieldsOf(dst)
	for _, key := range sortedKeys(src) {
		if f, ok := fields[key]; ok {
			d.decode(Join(path, key), src[key], f)
			continue
		}
		if rest.IsValid() {
			if rest.IsNil() {
				rest.Set(reflect.MakeMap(rest.Type()))
			}
			rest.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf(src[key]))
			continue
		}
		d.unknown(path, key, fields)
	}
}

func (d *Document) unknown(path, key string, fields map[string]reflect.Value) {
	known := make([]string, 0, len(fields))
	for k := range fields {
		known = append(known, k)
	}
	sort.Strings(known)
	if near := Nearest(key, known); near != "" {
		d.Add(Join(path, key), "unknown key; did you mean %q?", near)
		return
	}
	d.Add(Join(path, key), "unknown key\nknown here: %s", strings.Join(known, ", "))
}

func fieldsOf(v reflect.Value) (fields map[string]reflect.Value, rest reflect.Value) {
	fields = map[string]reflect.Value{}
	for i := range v.NumField() {
		switch tag := v.Type().Field(i).Tag.Get("toml"); tag {
		case "", "-":
		case ",rest":
			rest = v.Field(i)
		default:
			fields[tag] = v.Field(i)
		}
	}
	return fields, rest
}

func (d *Document) dictionary(path string, src any, dst reflect.Value) {
	t, ok := src.(map[string]any)
	if !ok {
		d.wrong(path, "a table", src)
		return
	}
	if dst.IsNil() {
		dst.Set(reflect.MakeMap(dst.Type())) // else its entries are defaults, and the file's are put over them
	}
	for _, key := range sortedKeys(t) {
		v := reflect.New(dst.Type().Elem()).Elem()
		d.decode(Join(path, key), t[key], v)
		dst.SetMapIndex(reflect.ValueOf(key), v)
	}
}

func (d *Document) list(path string, src any, dst reflect.Value) {
	s, ok := src.([]any)
	if !ok {
		want := "an array"
		if dst.Type().Elem().Kind() == reflect.Struct {
			want = fmt.Sprintf("an array of tables (write [[%s]])", path)
		}
		d.wrong(path, want, src)
		return
	}
	dst.Set(reflect.MakeSlice(dst.Type(), len(s), len(s)))
	for i := range s {
		d.decode(At(path, i), s[i], dst.Index(i))
	}
}

func (d *Document) scalar(path string, src any, dst reflect.Value) {
	switch dst.Kind() {
	case reflect.String:
		if s, ok := src.(string); ok {
			dst.SetString(s)
			return
		}
		d.wrong(path, "text in quotes", src)
	case reflect.Bool:
		if b, ok := src.(bool); ok {
			dst.SetBool(b)
			return
		}
		d.wrong(path, "true or false", src)
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Int16, reflect.Int8:
		if n, ok := src.(int64); ok && !dst.OverflowInt(n) {
			dst.SetInt(n)
			return
		}
		d.wrong(path, "a whole number", src)
	case reflect.Uint, reflect.Uint64, reflect.Uint32, reflect.Uint16, reflect.Uint8:
		if n, ok := src.(int64); ok && n >= 0 && !dst.OverflowUint(uint64(n)) {
			dst.SetUint(uint64(n))
			return
		}
		d.wrong(path, fmt.Sprintf("a whole number from 0 to %d", uint64(math.MaxUint64)>>(64-dst.Type().Bits())), src)
	case reflect.Float64:
		switch n := src.(type) {
		case float64:
			dst.SetFloat(n)
		case int64:
			dst.SetFloat(float64(n))
		default:
			d.wrong(path, "a number", src)
		}
	case reflect.Interface:
		dst.Set(reflect.ValueOf(src))
	default:
		panic("strict: no decoder for " + dst.Type().String())
	}
}

func (d *Document) wrong(path, want string, got any) {
	d.Add(path, "%s is not %s", Show(got), want)
}

// Show returns a TOML value as a message quotes it.
func Show(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case map[string]any:
		return "a table"
	case []any:
		return "an array"
	}
	return fmt.Sprint(v)
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

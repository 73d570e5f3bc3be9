"""The lines of a history file, from bytes to an array: one pass, no Python object a line.

1. A line is one JSON object of the fields that `FIELDS` names, in any order, each at most once;
   which of them an operation must and may have stands in REQUIRED and ALLOWED.
2. Nothing is skipped and nothing guessed: the first line that is not right ends the pass, with
   its number among the lines given, a reason, and the field it is about.
3. No byte outside the text is read, and nothing is written past the arrays given, whatever the
   text holds. Numbers that do not fit are refused, never cut.
"""
from libc.stdint cimport UINT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memset

import numpy

KINDS = ("read", "write", "zero", "flush", "crash", "end")
FIELDS = ("op", "client", "block", "count", "begin", "end", "until", "error", "fua", "values",
          "incarnation", "operations")
UNKNOWN_VALUE = UINT64_MAX
NEVER_TIME = NEVER
TIME_MAX = NEVER - 1

# what is wrong with a line: text of each reason, in the order of the enum below
REASONS = (
    "", "is not one JSON object", "has a field that no operation has", "has twice the field",
    "is of no known kind", "lacks the field", "must not have the field", "has a wrong field",
    "ends before it begins, by the field", "has another number of values than blocks",
    "has no block, or too many, by the field", "does not end with a line feed", "has no room",
    "was acknowledged and has all the same the field",
)
WRONG_FIELD = WRONG
# numbers in a field are less than this
NUMBER_LIMITS = {
    "client": 2**32, "block": NEVER, "count": 2**32, "begin": NEVER, "end": NEVER, "until": NEVER,
    "error": 2**31, "values": UNKNOWN_VALUE, "incarnation": NEVER, "operations": NEVER,
}

cdef enum reason:
    FINE, NOT_JSON, UNKNOWN_FIELD, TWICE, NO_KIND, LACKS, MUST_NOT, WRONG
    BACKWARDS, VALUE_COUNT, NO_BLOCK, UNFINISHED, NO_ROOM, ACKNOWLEDGED

cdef enum field:
    OP, CLIENT, BLOCK, COUNT, BEGIN, END, UNTIL, ERROR, FUA, VALUES, INCARNATION, OPERATIONS
    FIELD_COUNT

cdef struct text_t:
    const uint8_t* at
    const uint8_t* stop          # the line feed that ends the line

cdef struct name_t:
    const char* text
    uint32_t length

cdef name_t[FIELD_COUNT] names
cdef uint64_t[FIELD_COUNT] number_max
cdef name_t[KIND_END + 1] kinds
cdef uint32_t[KIND_END + 1] required
cdef uint32_t[KIND_END + 1] allowed

_field_bytes = [word.encode() for word in FIELDS]
_kind_bytes = [word.encode() for word in KINDS]

REQUIRED = {
    "read": ("block", "begin"), "write": ("block", "begin", "values"), "zero": ("block", "begin"),
    "flush": ("begin",), "crash": ("begin", "incarnation"), "end": ("operations",),
}
ALLOWED = {
    "read": ("client", "block", "count", "begin", "end", "error", "values"),
    "write": ("client", "block", "count", "begin", "end", "until", "error", "fua", "values"),
    "zero": ("client", "block", "count", "begin", "end", "until", "error", "fua"),
    "flush": ("client", "begin", "end", "error"),
    "crash": ("begin", "incarnation"),
    "end": ("operations",),
}

_operation_t = numpy.dtype([
    ("begin", "<i8"), ("end", "<i8"), ("until", "<i8"), ("block", "<u8"), ("first_value", "<u8"),
    ("count", "<u4"), ("client", "<u4"), ("error", "<i4"), ("kind", "u1"), ("fua", "u1"),
    ("has_values", "u1"), ("reserved", "u1")])
if _operation_t.itemsize != sizeof(operation_t):
    raise ImportError("repstore was built with another form of operations")
OPERATION_DTYPE = _operation_t


cdef uint32_t mask_of(tuple fields):
    cdef uint32_t mask = 1 << <int>OP
    for word in fields:
        mask |= 1 << <int>FIELDS.index(word)
    return mask


def _prepare():
    for i, word in enumerate(_field_bytes):
        names[i].text, names[i].length = word, len(word)
        number_max[i] = NUMBER_LIMITS.get(FIELDS[i], 1) - 1
    for i, word in enumerate(_kind_bytes):
        kinds[i].text, kinds[i].length = word, len(word)
        required[i], allowed[i] = mask_of(REQUIRED[KINDS[i]]), mask_of(ALLOWED[KINDS[i]])


_prepare()


cdef inline void skip_blanks(text_t* text) noexcept nogil:
    while text.at < text.stop and (text.at[0] == 32 or text.at[0] == 9 or text.at[0] == 13):
        text.at += 1


cdef inline bint take(text_t* text, uint8_t character) noexcept nogil:
    """Skip blanks and this character; False where another one stands."""
    skip_blanks(text)
    if text.at < text.stop and text.at[0] == character:
        text.at += 1
        return True
    return False


cdef inline bint take_word(text_t* text, const char* word, uint32_t length) noexcept nogil:
    skip_blanks(text)
    if text.stop - text.at >= length and memcmp(text.at, word, length) == 0:
        text.at += length
        return True
    return False


cdef inline int take_name(text_t* text, const name_t* among, int count) noexcept nogil:
    """Which of the names stands there in quotes; -1: no text, -2: another one."""
    cdef const uint8_t* first
    cdef int i
    if not take(text, b'"'):
        return -1
    first = text.at
    while text.at < text.stop and text.at[0] != b'"':
        if text.at[0] == b'\\' or text.at[0] < 32:
            return -2                          # no name has such a character
        text.at += 1
    if text.at == text.stop:
        return -1
    text.at += 1
    for i in range(count):
        if text.at - 1 - first == among[i].length and memcmp(first, among[i].text, among[i].length) == 0:
            return i
    return -2


cdef inline bint take_number(text_t* text, uint64_t limit, uint64_t* number) noexcept nogil:
    """A whole number of at most `limit`, as JSON writes it."""
    cdef uint64_t value = 0, digit
    cdef const uint8_t* first
    skip_blanks(text)
    first = text.at
    while text.at < text.stop and 48 <= text.at[0] <= 57:
        digit = text.at[0] - 48
        if value > (UINT64_MAX - digit) // 10:
            return False
        value = value * 10 + digit
        text.at += 1
    if text.at == first or (first[0] == 48 and text.at - first > 1) or value > limit:
        return False
    if text.at < text.stop and (text.at[0] == b'.' or text.at[0] == b'e' or text.at[0] == b'E'):
        return False
    number[0] = value
    return True


cdef int take_values(text_t* text, uint64_t* values, uint64_t room, uint64_t* count) noexcept nogil:
    count[0] = 0
    if not take(text, b'['):
        return WRONG
    if take(text, b']'):
        return FINE
    while True:
        if count[0] == room:
            return NO_ROOM
        if take_word(text, b"null", 4):
            values[count[0]] = UINT64_MAX
        elif not take_number(text, number_max[<int>VALUES], &values[count[0]]):
            return WRONG
        count[0] += 1
        if take(text, b']'):
            return FINE
        if not take(text, b','):
            return WRONG


cdef int take_field(text_t* text, int which, operation_t* out, uint64_t* values, uint64_t room,
                    uint64_t* value_count) noexcept nogil:
    cdef uint64_t number = 0
    cdef int kind
    if which == OP:
        kind = take_name(text, kinds, KIND_END + 1)
        if kind < 0:
            return NO_KIND
        out.kind = <uint8_t>kind
        return FINE
    if which == VALUES:
        out.has_values = True
        return take_values(text, values, room, value_count)
    if which == FUA:
        if take_word(text, b"true", 4):
            out.fua = True
            return FINE
        return FINE if take_word(text, b"false", 5) else WRONG
    if (which == END or which == UNTIL) and take_word(text, b"null", 4):
        return FINE
    if not take_number(text, number_max[which], &number):
        return WRONG
    if which == CLIENT:
        out.client = <uint32_t>number
    elif which == COUNT:
        out.count = <uint32_t>number
    elif which == ERROR:
        out.error = <int32_t>number
    elif which == BEGIN:
        out.begin = <int64_t>number
    elif which == END:
        out.end = <int64_t>number
    elif which == UNTIL:
        out.until = <int64_t>number
    else:                                      # block, incarnation, operations
        out.block = number
    return FINE


cdef int take_line(text_t* text, operation_t* out, uint64_t* values, uint64_t room, uint64_t* value_count,
                   int* about) noexcept nogil:
    """One line into `out`. Returns the reason why not; `about` is the field."""
    cdef uint32_t seen = 0
    cdef int which, wrong
    memset(out, 0, sizeof(operation_t))
    out.end = out.until = NEVER
    out.count = 1
    value_count[0] = 0
    about[0] = OP
    if not take(text, b'{'):
        return NOT_JSON
    while True:
        which = take_name(text, names, FIELD_COUNT)
        if which < 0:
            return NOT_JSON if which == -1 else UNKNOWN_FIELD
        about[0] = which
        if seen & (1 << which):
            return TWICE
        seen |= 1 << which
        if not take(text, b':'):
            return NOT_JSON
        wrong = take_field(text, which, out, values, room, value_count)
        if wrong:
            return wrong
        if take(text, b'}'):
            break
        if not take(text, b','):
            return NOT_JSON
    skip_blanks(text)
    if text.at != text.stop:
        return NOT_JSON
    return judge(out, seen, value_count[0], about)


cdef int judge(const operation_t* operation, uint32_t seen, uint64_t value_count, int* about) noexcept nogil:
    """Whether an operation can be what it says, as far as one line can tell."""
    cdef uint32_t wrong
    cdef bint acknowledged = operation.end != NEVER and operation.error == 0
    about[0] = OP
    if not seen & (1 << <int>OP):
        return LACKS
    wrong = required[operation.kind] & ~seen
    if operation.kind == KIND_READ and acknowledged:
        wrong |= (1 << <int>VALUES) & ~seen
    if wrong:
        about[0] = lowest(wrong)
        return LACKS
    wrong = seen & ~allowed[operation.kind]
    if wrong:
        about[0] = lowest(wrong)
        return MUST_NOT
    about[0] = COUNT
    if operation.count == 0:
        return NO_BLOCK
    about[0] = VALUES
    if operation.has_values and value_count != operation.count:
        return VALUE_COUNT
    about[0] = END
    if operation.end < operation.begin:
        return BACKWARDS
    about[0] = UNTIL
    if operation.until < operation.begin:
        return BACKWARDS
    return ACKNOWLEDGED if acknowledged and operation.until != NEVER else FINE


cdef inline int lowest(uint32_t mask) noexcept nogil:
    cdef int which = 0
    while not mask & 1:
        mask >>= 1
        which += 1
    return which


def parse(const uint8_t[::1] text, operation_t[::1] operations, uint64_t[::1] values,
          uint64_t first_value):
    """Parse the lines of `text` (bytes), each ending with a line feed.

    `operations` takes one row a line and `values` their values; `first_value` counts the values
    that earlier texts had. Returns (lines that are right, their values, reason, field): with
    reason 0 all lines were right, else the next one is not, see REASONS and FIELDS. Releases
    the GIL; pure, so any thread may call it.
    """
    cdef text_t cursor
    cdef const uint8_t* stop
    cdef uint64_t lines = 0, used = 0, count = 0, room = values.shape[0]
    cdef int wrong = FINE, about = OP
    if text.shape[0] == 0:
        return 0, 0, 0, 0
    with nogil:
        cursor.at = &text[0]
        stop = cursor.at + text.shape[0]
        while cursor.at < stop and not wrong:
            cursor.stop = <const uint8_t*>memchr(cursor.at, 10, stop - cursor.at)
            if cursor.stop == NULL:
                wrong = UNFINISHED
            elif lines == <uint64_t>operations.shape[0]:
                wrong = NO_ROOM
            else:
                wrong = take_line(&cursor, &operations[lines], &values[0] + used if room else NULL,
                                  room - used, &count, &about)
            if not wrong:
                operations[lines].first_value = first_value + used
                used += count
                lines += 1
                cursor.at = cursor.stop + 1
    return lines, used, wrong, about

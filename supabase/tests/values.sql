-- Values: time, ids, clocks, numbers, schemas.
begin;
\ir support/wire.psql
select * from no_plan();

select is(syncline.millis(v.text), v.millis, v.text) from (values
  ('1970-01-01T00:00:00Z', 0::bigint), ('2026-05-01T12:00:00.98765+02:00', 1777629600987), ('0000-01-01T00:00:00Z', -62167219200000),
  ('9999-12-31T23:59:59.999999Z', 253402300799999), ('9999-12-31T23:59:59-23:59', 253402300799999), ('2024-02-29t00:00:00z', 1709164800000),
  ('2000-02-29T00:00:00Z', 951782400000), ('1969-12-31T23:59:59.9999Z', -1), ('1970-01-01T00:00:00.5Z', 500),
  ('yesterday', null), ('now', null), ('infinity', null), ('2026-02-29T00:00:00Z', null), ('1900-02-29T00:00:00Z', null), ('2026-13-01T00:00:00Z', null),
  ('2026-00-01T00:00:00Z', null), ('2026-01-32T00:00:00Z', null), ('2026-04-31T00:00:00Z', null), ('2026-01-01T24:00:00Z', null), ('2026-01-01T00:60:00Z', null),
  ('2026-01-01', null), ('2026-01-01T00:00:00', null), ('2026-01-01T00:00:00+2', null), ('', null)) as v(text, millis);
select is_empty($$
  select m from generate_series(-62167219200000, 253402300799999, 86399999 * 977::bigint) m where syncline.millis(syncline.moment(m)) is distinct from m
$$, 'a moment survives its text');
select matches(syncline.new_id(1777636800000), '^019de368-f600-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$', 'ids are uuid v7');

select is(syncline.is_id(v.text), v.yes, 'id ' || v.name) from (values
  ('ordinary', 'a-1', true), ('128 of two bytes', repeat('ä', 128), true), ('129', repeat('a', 129), false), ('empty', '', false),
  ('a line', E'a\nb', false), ('delete', E'a\x7f', false), ('C1', U&'a\0085', false), ('quotes', 'a"b''c\', true)) as v(name, text, yes);

select is(syncline.same_value(v.a::jsonb, v.b::jsonb), v.yes, concat_ws(' and ', v.a, v.b)) from (values
  ('1', '1.0', true), ('1', '1.00000000000000000000001', true), ('0.1', '0.10000000000000000555', true), ('0', '1e-400', true), ('1', '2', false),
  ('{"a": [1, 2]}', '{"a": [1.0, 2]}', true), ('{"a": [1, 2]}', '{"a": [2, 1]}', false), (null, 'null', true), ('"1"', '1', false)) as v(a, b, yes);

select is(syncline.number_fault(v.text, '$') ->> 'reason', v.reason, v.text) from (values
  ('0', null), ('9007199254740991', null), ('9007199254740991.4', null), ('1e21', null), ('1e300', null), ('1.7976931348623157e308', null), ('1e-20000', null), ('0e99999', null),
  ('-0', null), ('123456789012345678901234567890', null),
  ('9007199254740992', 'is an integer beyond 2^53 - 1 (send it as text)'), ('-9007199254740993.0', 'is an integer beyond 2^53 - 1 (send it as text)'),
  ('1e16', 'is an integer beyond 2^53 - 1 (send it as text)'), ('999999999999999900000', 'is an integer beyond 2^53 - 1 (send it as text)'),
  ('1e400', 'number out of range'), ('1.7976931348623159e308', 'number out of range'), ('-1e999999999', 'number out of range')) as v(text, reason);

-- The quick reader and the exact one agree.
select is(syncline.read_object(v.text, false) is not null, syncline.payload_fault(v.text, 'create', null, 262144) is null, left(v.text, 60)) from (values
  ('{}'), ('{"a": 1}'), ('{"a": 1, "a": 1}'), ('{"a": {"b": 1, "b": 1}}'), ('{"a": "\"", "b": "\\"}'), ('{"a": "\u0022\u005c", "a": 1}'), ('[1]'), ('"x"'), ('{"n": 9007199254740993}'),
  ('{"n": 0.12345678901234567}'), ('{"key": "3e1234"}'), ('{"a": ' || repeat('[', 31) || repeat(']', 31) || '}'), ('{"a": ' || repeat('[', 32) || '1' || repeat(']', 32) || '}')) as v(text);

select is(syncline.compact_bytes(v.value::jsonb), v.bytes, v.value) from (values
  ('{}', 2), ('{"a": 1, "b": [1, 2]}', 17), ('{"a": ", : \" , "}', 17)) as v(value, bytes);

select is(syncline.schema_error(v.schema::jsonb, v.record::jsonb) ->> 'field', v.field, v.schema || ' and ' || v.record) from (values
  ('{"properties": {"a": {"type": "integer"}}}', '{"a": 1.0}', null), ('{"properties": {"a": {"type": "integer"}}}', '{"a": 1.5}', 'a'),
  ('{"required": ["a"]}', '{}', 'a'), ('{"properties": {"a": true}, "additionalProperties": false}', '{"b": 1}', 'b'),
  ('{"properties": {"a": {"items": {"maxLength": 2}}}}', '{"a": ["xx", "xxx"]}', 'a'), ('{"properties": {"a": {"enum": [1, "x"]}}}', '{"a": "y"}', 'a'),
  ('{"properties": {"a": {"minimum": 3, "maximum": 5}}}', '{"a": 6}', 'a'), ('{"properties": {"a": {"pattern": "^x"}}}', '{"a": "y"}', 'a'),
  ('{"minProperties": 1}', '{}', null)) as v(schema, record, field);
select throws_ok($$insert into syncline.entity_types values ('pin', null, null, '{"allOf": []}')$$, '23514', null, 'a keyword that is not checked is refused');

select * from finish();
rollback;

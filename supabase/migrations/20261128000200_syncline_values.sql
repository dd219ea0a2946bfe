-- Values: time, ids, clocks, problems. No function here reads a table, but for the settings.
--
-- Every function of Syncline has an empty search_path: `pg_catalog` is the only schema found without a name. The price is that
-- Postgres does not inline them, so what runs for every operation of a push spells its common case out. They are plpgsql, also
-- where SQL would do, because a session keeps the plans of plpgsql; those of a function in SQL are made anew by each statement.

-- Now, in milliseconds since 1970: the database's clock. A superuser may set `syncline.now` for tests; nobody else is believed.
create function syncline.clock() returns bigint
language plpgsql stable set search_path = '' as $$
begin
  return case
    when current_setting('syncline.now', true) <> '' and (select rolsuper from pg_roles where rolname = session_user)
    then current_setting('syncline.now', true)::bigint
    else floor(extract(epoch from clock_timestamp()) * 1000)::bigint
  end;
end
$$;

-- A time-ordered id (uuid v7).
create function syncline.new_id(p_now bigint) returns text
language plpgsql volatile set search_path = '' as $$
begin
  return encode(
    set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing substr(int8send(p_now), 3) from 1 for 6), 52, 1), 53, 1),
    'hex')::uuid::text;
end
$$;

-- The milliseconds since 1970 of an RFC 3339 moment, what is finer cut off; null if the text is none. Never raises.
create function syncline.millis(p_text text) returns bigint
language plpgsql immutable set search_path = '' as $$
begin
  return case when p_text ~ '^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$' then (
    select case
      when t.month between 1 and 12 and t.hour < 24 and t.minute < 60 and t.second < 60
        and t.off_hour < 24 and t.off_minute < 60
        and t.day between 1 and case
          when t.month in (4, 6, 9, 11) then 30
          when t.month <> 2 then 31
          when t.year % 4 = 0 and (t.year % 100 <> 0 or t.year % 400 = 0) then 29
          else 28 end
      then least(greatest(
        -- Days since 1970 of a civil date, counted from 1 March of a year 400 years earlier.
        ((d.y / 400 * 146097 + d.y % 400 * 365 + d.y % 400 / 4 - d.y % 400 / 100
          + (153 * (t.month + case when t.month > 2 then -3 else 9 end) + 2) / 5 + t.day - 1 - 865565)::bigint * 86400
          + t.hour * 3600 + t.minute * 60 + t.second - t.sign * (t.off_hour * 3600 + t.off_minute * 60)) * 1000
        + t.fraction, -62167219200000), 253402300799999)
      end
    from (select
      substr(p_text, 1, 4)::int as year, substr(p_text, 6, 2)::int as month, substr(p_text, 9, 2)::int as day,
      substr(p_text, 12, 2)::int as hour, substr(p_text, 15, 2)::int as minute, substr(p_text, 18, 2)::int as second,
      case when substr(p_text, 20, 1) = '.'
        then rpad(substring(p_text from 21 for 3), 3, 'Z') else '000' end as digits,
      case when right(p_text, 1) in ('Z', 'z') then 0 else substr(right(p_text, 5), 1, 2)::int end as off_hour,
      case when right(p_text, 1) in ('Z', 'z') then 0 else right(p_text, 2)::int end as off_minute,
      case substr(right(p_text, 6), 1, 1) when '-' then -1 else 1 end as sign) r
    cross join lateral (select r.*, rpad(substring(r.digits from '^\d*'), 3, '0')::int as fraction) t
    cross join lateral (select t.year + 400 - case when t.month <= 2 then 1 else 0 end as y) d
  ) end;
end
$$;

-- The moment as it stands on the wire: UTC, three decimals.
create function syncline.moment(p_millis bigint) returns text
language plpgsql immutable set search_path = '' as $$
begin
  return (
    select case when p_millis >= -62135596800000 then to_char(m.at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
      -- Postgres has no year 0; the year 400 has the same days.
      else '0000' || to_char(m.at + interval '400 years', '-MM-DD"T"HH24:MI:SS.MS"Z"') end
    from (select timestamp '1970-01-01' + (p_millis / 86400000)::int * interval '1 day'
      + (p_millis % 86400000) * interval '1 millisecond' as at) m);
end
$$;

-- Whether a text may be an id: 1 to 128 characters, none of them a control character.
create function syncline.is_id(p_text text) returns boolean
language plpgsql immutable set search_path = '' as $$
begin
  return length(p_text) between 1 and 128 and p_text !~ '[\u0001-\u001f\u007f-\u009f]';
end
$$;

-- Whether a text may be an entity type.
create function syncline.is_name(p_text text) returns boolean
language plpgsql immutable set search_path = '' as $$
begin
  return p_text ~ '^[a-z0-9_]{1,64}$';
end
$$;

-- Whether a clock has seen the dot of a write.
create function syncline.covers(p_clock jsonb, p_write jsonb) returns boolean
language plpgsql immutable set search_path = '' as $$
begin
  return coalesce((p_clock -> (p_write ->> 0))::bigint, 0) >= (p_write -> 1)::bigint;
end
$$;

-- Whether a clock has seen all that another one has.
create function syncline.covers_clock(p_clock jsonb, p_other jsonb) returns boolean
language plpgsql immutable set search_path = '' as $$
begin
  return p_clock @> p_other or not exists (
    select from jsonb_each(p_other) o where coalesce((p_clock -> o.key)::bigint, 0) < o.value::bigint);
end
$$;

-- Per device, the highest dot of a field, the create or the delete.
create function syncline.clock_of(p_fields jsonb, p_created jsonb, p_deleted jsonb) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  return (
    select jsonb_object_agg(w.device, w.sequence) from (
      select v.write ->> 0 as device, max((v.write -> 1)::bigint) as sequence
      from (select f.value as write from jsonb_each(p_fields) f
            union all values (p_created), (p_deleted)) v
      where v.write is not null
      group by 1) w);
end
$$;

-- The highest timestamp of a field, the create or the delete.
create function syncline.changed_at_of(p_fields jsonb, p_created jsonb, p_deleted jsonb) returns bigint
language plpgsql immutable set search_path = '' as $$
begin
  return greatest((p_created -> 2)::bigint, (p_deleted -> 2)::bigint,
    (select max((f.value -> 2)::bigint) from jsonb_each(p_fields) f));
end
$$;

-- Whether a write is later than another one: by timestamp, ties by device id, in the order of its bytes.
create function syncline.is_later(p_write jsonb, p_other jsonb) returns boolean
language plpgsql immutable set search_path = '' as $$
begin
  return ((p_write -> 2)::bigint, (p_write ->> 0) collate "C") > ((p_other -> 2)::bigint, (p_other ->> 0) collate "C");
end
$$;

-- A problem: the answer that speaks of the request (docs/protocol.md, "Problems"). Leaves status and headers for whatever
-- carries the answer, and gives the body.
create function syncline.problem(p_code text, p_more jsonb default '{}') returns json
language plpgsql volatile set search_path = '' as $$
declare
  v_status int;
  v_title text;
begin
  select p.status, p.title into strict v_status, v_title from (values
    ('invalid_request', 400, 'The request is not valid'),
    ('too_deep', 400, 'The body is nested too deep'),
    ('body_too_large', 413, 'The body is too large'),
    ('too_many_operations', 413, 'The push has too many operations'),
    ('unsupported_protocol', 400, 'The protocol version is not supported'),
    ('forbidden', 403, 'The token does not allow this'),
    ('wrong_user', 403, 'The file belongs to another user than the token'),
    ('wrong_scope', 403, 'The token does not allow this scope'),
    ('wrong_device', 403, 'The device id belongs to another user'),
    ('device_forked', 409, 'Another copy of this device has written'),
    ('server_behind', 409, 'The server''s history is another one'),
    ('unavailable', 503, 'The endpoint cannot answer for now')) as p(code, status, title)
  where p.code = p_code;
  perform syncline.answer_with(v_status);
  return (jsonb_build_object('code', p_code, 'status', v_status, 'title', v_title) || p_more)::json;
end
$$;

-- Leaves the status and headers of an answer where PostgREST, and `syncline serve`, look for them.
create function syncline.answer_with(p_status int) returns void
language plpgsql volatile set search_path = '' as $$
begin
  perform
    set_config('response.status', p_status::text, true),
    set_config('response.headers', case p_status
      when 200 then '[{"syncline-protocol": "1"}]'
      when 503 then '[{"syncline-protocol": "1"}, {"content-type": "application/problem+json"}, {"retry-after": "1"}]'
      else '[{"syncline-protocol": "1"}, {"content-type": "application/problem+json"}]' end, true);
end
$$;

-- Of which cluster and timeline the database is: what changes when a standby is promoted or a backup restored. The timeline
-- is that of the write-ahead log, because the control file's lags behind a promotion until the next checkpoint. May be
-- replaced where these functions are not to be had; a constant text finds nothing.
create function syncline.cluster() returns text
language plpgsql volatile security definer set search_path = '' as $$
begin
  return (
    select system_identifier::text || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) from pg_control_system());
end
$$;

-- A value with every number as its double: what a reader of JSON makes of it.
create function syncline.with_doubles(p_value jsonb) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  case jsonb_typeof(p_value)
    when 'number' then
      -- Postgres refuses to turn what is too small for a double into 0.
      return case when abs(p_value::numeric) < 2.4703282292062328e-324 then '0' else to_jsonb(p_value::numeric::float8) end;
    when 'array' then
      return (select coalesce(jsonb_agg(syncline.with_doubles(a.value) order by a.n), '[]')
        from jsonb_array_elements(p_value) with ordinality as a(value, n));
    when 'object' then
      return (select coalesce(jsonb_object_agg(o.key, syncline.with_doubles(o.value)), '{}') from jsonb_each(p_value) o);
    else
      return p_value;
  end case;
end
$$;

-- Whether a value is the JSON that two writers would call the same: null and absent are one, numbers are IEEE doubles.
create function syncline.same_value(p_a jsonb, p_b jsonb) returns boolean
language plpgsql immutable set search_path = '' as $$
begin
  return coalesce(p_a, 'null') = coalesce(p_b, 'null')
    or syncline.with_doubles(coalesce(p_a, 'null')) = syncline.with_doubles(coalesce(p_b, 'null'));
end
$$;

-- A record without the fields that are null: null and absent are one. Only its own fields: a value is a value.
create function syncline.without_nulls(p_record jsonb) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  return case when jsonb_path_exists(p_record, 'strict $.* ? (@ == null)')
    then (select coalesce(jsonb_object_agg(r.key, r.value), '{}') from jsonb_each(p_record) r where r.value <> 'null')
    else p_record end;
end
$$;

-- Bytes of a value's JSON text without the spaces that Postgres puts into it.
create function syncline.compact_bytes(p_value jsonb) returns int
language plpgsql immutable set search_path = '' as $$
begin
  return (
    select octet_length(p_value::text)
      - (length(r.rest) - length(replace(replace(r.rest, ', ', ','), ': ', ':')))
    from (select regexp_replace(p_value::text, '"(?:[^"\\]|\\.)*"', '""', 'g') as rest) r);
end
$$;

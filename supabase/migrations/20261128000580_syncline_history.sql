-- Cursors and epochs: which history a device knows, and which one this is (spec §6).

create type syncline.cursor as (
  version bigint, purged_through bigint, epoch text, entity_types text[]
);

-- A cursor: opaque text on the wire. It gives no access, so it is not signed; a scope is named by its hash.
create function syncline.cursor_text(p_scope text, p_row syncline.scopes, p_version bigint, p_entity_types text[]) returns text
language plpgsql immutable set search_path = '' as $$
begin
  return concat_ws('.', 'p1', p_version, (p_row).purged_through, (p_row).epoch,
    left(encode(sha256(convert_to(p_scope, 'UTF8')), 'hex'), 32), array_to_string(p_entity_types, ','));
end
$$;

-- Reads a cursor of this scope; null if it is not one.
create function syncline.cursor_of(p_scope text, p_text text) returns syncline.cursor
language plpgsql immutable set search_path = '' as $$
begin
  return (
    select row(c.part[1]::bigint, c.part[2]::bigint, c.part[3], string_to_array(c.part[5], ','))::syncline.cursor
    from (select regexp_match(p_text, '^p1\.(\d{1,16})\.(\d{1,16})\.([0-9A-Za-z-]{1,64})\.([0-9a-f]{32})(?:\.([a-z0-9_,]*))?$') as part
          where length(p_text) <= 32768) c
    where c.part[4] = left(encode(sha256(convert_to(p_scope, 'UTF8')), 'hex'), 32) and c.part[1]::bigint <= 9007199254740991);
end
$$;

-- The scope's row, locked; made on first use. Renews its epoch if the database has gone back in time (spec §6): that stays,
-- whatever is answered.
create function syncline.open_scope(r syncline.request, p_cursor syncline.cursor, p_now bigint) returns syncline.scopes
language plpgsql volatile set search_path = '' as $$
declare
  v_scope syncline.scopes;
  v_cluster constant text := syncline.cluster();
begin
  select * into v_scope from syncline.scopes s where s.scope = r.scope for update;
  if not found then
    insert into syncline.scopes (scope, epoch, cluster) values (r.scope, syncline.new_id(p_now), v_cluster) on conflict (scope) do nothing;
    select * into strict v_scope from syncline.scopes s where s.scope = r.scope for update;
  end if;
  if v_scope.cluster <> v_cluster
    or r.epoch = v_scope.epoch and r.mark > (
      select coalesce(max(d.mark), 0) from syncline.devices d where d.scope = r.scope and d.device_id = r.device_id)
    or (p_cursor).epoch = v_scope.epoch and (p_cursor).version > v_scope.head then
    v_scope.epoch := syncline.new_id(p_now);
    v_scope.cluster := v_cluster;
    update syncline.scopes s set epoch = v_scope.epoch, cluster = v_cluster where s.scope = r.scope;
  end if;
  return v_scope;
end
$$;

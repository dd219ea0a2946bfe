-- What a later version might bring, for the test of upgrades: columns in tables whose rows functions hold, a table rewritten, an index,
-- a function with another text.
--
-- Whoever changes tables takes `settings` first: every request reads it before anything else, so that none is under way then, and none
-- can hold what the migration wants while it waits for what the migration has.
lock table syncline.settings in access exclusive mode;

-- In the order opposite to that of a push.
alter table syncline.operations add column by_version text not null default 'first';
create index operations_by_entity on syncline.operations (scope, entity_type, entity_id);
analyze syncline.operations;
alter table syncline.scopes add column renewed_at bigint;
alter table syncline.devices add column seen_at bigint not null default 0;
-- A default that is not constant: the table is written anew.
alter table syncline.entities add column drawn double precision not null default random();
alter table syncline.settings add column answers_kept_days int not null default 30 check (answers_kept_days >= 1);

do $$
declare
  v_text text := pg_get_functiondef('syncline.write'::regproc);
begin
  v_text := replace(v_text, 'content_hash, verdict, error, conflict_id, decided_at)', 'content_hash, verdict, error, conflict_id, decided_at, by_version)');
  v_text := replace(v_text, $x$o.conflict ->> 'id', p_now
  from$x$, $x$o.conflict ->> 'id', p_now, 'next'
  from$x$);
  if strpos(v_text, $x$p_now, 'next'$x$) = 0 then
    raise 'syncline.write is another one: this test must follow it';
  end if;
  execute v_text;
end
$$;

insert into supabase_migrations.schema_migrations (version, name) values ('20990101000000', 'syncline_next');

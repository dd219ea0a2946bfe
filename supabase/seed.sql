-- An example: teams that put pins on plans, fill in forms at them, and take photos. Brought in by `supabase db push --include-seed`;
-- take what fits. How tables are registered, and what is refused, is in docs/postgres-tables.md.
--
-- What the tables have in common: the scope (here the team) is the first column of every key and of every foreign key between
-- them, so no team can learn of another one's rows; the id is made on the device; `clock` is Syncline's.

-- Who may work in which team: a table, asked on every push and pull. Removing a row closes the team at once. (The alternative is a claim
-- of the token: `update syncline.settings set scope_claim = '/app_metadata/teams'`, and leave `allowed_scopes` as it is.)
create table public.teams (
  id   text primary key check (length(id) between 1 and 128),
  name text not null
);
comment on table public.teams is 'A team is a scope of Syncline. Its members are in syncline.members.';

create or replace function syncline.allowed_scopes() returns text[]
language sql stable security definer set search_path = '' as $$ select syncline.scopes_by_membership() $$;

create table public.pins (
  team_id    text not null references public.teams (id),
  id         uuid not null,
  title      text not null check (length(title) between 1 and 200),
  note       text,
  status     text not null default 'open' check (status in ('open', 'doing', 'done')),
  x          double precision check (x between 0 and 1),
  y          double precision check (y between 0 and 1),
  author     text,
  created_at timestamptz not null default now(),
  extra      jsonb,
  clock      jsonb,
  primary key (team_id, id)
);
comment on column public.pins.extra is 'Fields that newer apps write and this table has no column for.';

create table public.forms (
  team_id text not null references public.teams (id),
  id      uuid not null,
  pin_id  uuid not null,
  kind    text not null check (kind in ('inspection', 'defect')),
  answers jsonb not null default '{}',
  signed  boolean not null default false,
  clock   jsonb,
  primary key (team_id, id),
  -- Deferrable, so that a transaction may hold the form before its pin. A pin that is deleted takes its forms along; devices hear of it.
  foreign key (team_id, pin_id) references public.pins (team_id, id) on delete cascade deferrable initially immediate
);
create index forms_by_pin on public.forms (team_id, pin_id);

-- What is known of a photo. Its bytes are an attachment of their own (docs/protocol.md); `path` is where they are stored.
create table public.photos (
  team_id text not null references public.teams (id),
  id      uuid not null,
  pin_id  uuid not null,
  caption text,
  path    text,
  sha256  text check (sha256 ~ '^[0-9a-f]{64}$'),
  clock   jsonb,
  primary key (team_id, id),
  foreign key (team_id, pin_id) references public.pins (team_id, id) on delete cascade deferrable initially immediate
);
create index photos_by_pin on public.photos (team_id, pin_id);

-- The API of the project sees the tables as Syncline does: the rows of one's own teams.
select syncline.scope_policy('public.pins', 'team_id');
select syncline.scope_policy('public.forms', 'team_id');
select syncline.scope_policy('public.photos', 'team_id');
alter table public.teams enable row level security;
create policy own_teams on public.teams for select to authenticated using (id = any ((select syncline.allowed_scopes())::text[]));

-- A rule beyond the scope: only its author deletes a pin, and nobody writes as somebody else. Asked once for each push.
create function public.may_change_pins(p_claims jsonb, p_changes syncline.change[]) returns boolean[]
language sql stable set search_path = '' as $$
  select array_agg(case c.operation
      when 'delete' then coalesce(c.old_row ->> 'author', p_claims ->> 'sub') = p_claims ->> 'sub'
      else c.new_row ->> 'author' is not distinct from c.old_row ->> 'author' or c.new_row ->> 'author' = p_claims ->> 'sub' end order by c.n)
  from unnest(p_changes) with ordinality as c(operation, entity_id, old_row, new_row, n)
$$;
revoke all on function public.may_change_pins(jsonb, syncline.change[]) from public, anon, authenticated;

select syncline.register_table('pin', 'public.pins', p_scope_column => 'team_id', p_rest_column => 'extra', p_read_only => '{created_at}',
  p_authorize => 'public.may_change_pins(jsonb, syncline.change[])');
select syncline.register_table('form', 'public.forms', p_scope_column => 'team_id');
-- Where the bytes lie is the server's to say.
select syncline.register_table('photo', 'public.photos', p_scope_column => 'team_id', p_read_only => '{path}');

insert into public.teams (id, name) values ('north', 'North site'), ('south', 'South site');
-- Put the ids of your own users here (`auth.users.id`): insert into syncline.members (scope, user_id) values ('north', '…');
insert into public.pins (team_id, id, title, x, y) values
  ('north', '019de368-f600-7000-8000-000000000001', 'Leaking valve', 0.25, 0.5),
  ('north', '019de368-f600-7000-8000-000000000002', 'Loose railing', 0.7, 0.1);
insert into public.forms (team_id, id, pin_id, kind) values
  ('north', '019de368-f600-7000-8000-00000000000a', '019de368-f600-7000-8000-000000000001', 'defect');

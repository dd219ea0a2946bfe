-- Who asks, and what may they open: claims and scopes, evaluated on every push and pull.
--
-- Supabase's API verifies the token and leaves its claims in the setting `request.jwt.claims`; so does `syncline serve`.
-- Nothing in a request's body ever gives access.

-- The claims of the verified token; null without one.
create function syncline.claims() returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  return nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb;
end
$$;

-- Whose token it is: `sub`, if that is a text that may be an id.
create function syncline.caller() returns text
language plpgsql stable set search_path = '' as $$
begin
  return (
    select c.claims ->> 'sub' from (select syncline.claims() as claims) c
    where pg_catalog.jsonb_typeof(c.claims -> 'sub') = 'string' and syncline.is_id(c.claims ->> 'sub'));
end
$$;

-- The scopes of a claim: one text, or an array of texts. Anything else opens nothing.
create function syncline.scopes_of_claim(p_claim jsonb) returns text[]
language plpgsql immutable set search_path = '' as $$
begin
  return case pg_catalog.jsonb_typeof(p_claim)
    when 'string' then array[p_claim #>> '{}']
    when 'array' then (
      select pg_catalog.array_agg(e.scope #>> '{}')
      from pg_catalog.jsonb_array_elements(p_claim) as e(scope)
      having pg_catalog.bool_and(pg_catalog.jsonb_typeof(e.scope) = 'string'))
  end;
end
$$;

-- What the caller may open. THIS FUNCTION IS MEANT TO BE REPLACED, by a migration of the project's own:
--
--   create or replace function syncline.allowed_scopes() returns text[]
--   language sql stable security definer set search_path = '' as $x$ select syncline.scopes_by_membership() $x$;
--
-- As shipped it reads the claim that `syncline.settings.scope_claim` names; without one, every user has a scope of their own,
-- named by `sub`. Null or an empty array opens nothing.
create function syncline.allowed_scopes() returns text[]
language plpgsql stable security definer set search_path = '' as $$
begin
  return (
    select case
      when s.scope_claim is null then array[syncline.caller()]
      when s.scope_claim like '/%' then syncline.scopes_of_claim(
        c.claims #> pg_catalog.string_to_array(pg_catalog.substr(s.scope_claim, 2), '/'))
      else syncline.scopes_of_claim(c.claims -> s.scope_claim)
    end
    from syncline.settings s, (select syncline.claims() as claims) c);
end
$$;

-- The alternative: a table of members. Removing a row closes the scope at once, whatever a token still says.
create function syncline.scopes_by_membership() returns text[]
language plpgsql stable security definer set search_path = '' as $$
begin
  return (
    select pg_catalog.array_agg(m.scope) from syncline.members m where m.user_id = syncline.caller());
end
$$;

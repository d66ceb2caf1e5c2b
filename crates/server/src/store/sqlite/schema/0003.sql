-- Answers that show a value which is shown once: the id of the secret or API key as text, the secret's
-- fingerprint, and the API key whose request made it. With a secret its answers are erased: `response` is
-- empty then.
ALTER TABLE idempotency ADD COLUMN shows TEXT;
ALTER TABLE idempotency ADD COLUMN shown_fingerprint TEXT;
ALTER TABLE idempotency ADD COLUMN shown_to BLOB;
CREATE INDEX idempotency_shows ON idempotency (shows) WHERE shows IS NOT NULL;

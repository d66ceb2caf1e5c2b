// Every page is looked at in both themes and in both widths.
import { PHONE, WIDE } from "./lib.mjs";

export const LOOKS = [
  { name: "light", theme: "light", viewport: WIDE },
  { name: "dark", theme: "dark", viewport: WIDE },
  { name: "dark-phone", theme: "dark", viewport: PHONE },
  { name: "light-phone", theme: "light", viewport: PHONE },
];

/** Both themes and both widths, each once: for what is many. */
export const TWO_LOOKS = LOOKS.filter((look) => ["light", "dark-phone"].includes(look.name));

/** Examines the page that stands there in every look, and takes two pictures of it where they are wanted. */
export async function everyLook(t, page, name, { picture = false, window = false, looks = LOOKS } = {}) {
  for (const look of looks) {
    await page.emulateMedia({ colorScheme: look.theme });
    await page.setViewportSize(look.viewport);
    await t.examine(page, `${name}, ${look.name}`);
    if (picture && TWO_LOOKS.includes(look)) await t.picture(page, `${name}-${look.name}`, { fullPage: !window });
  }
}

"""What the invented shop sells: categories, product types, attributes, abbreviations.

Every product type and every attribute is one *term*, spelled in one canonical way, and no term is
both. Where an attribute and a product of one category stand together ("vanilla" + "milk"), they
never spell another product ("almond milk"), so that a query has one right reading.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Category:
    """One shelf: its product types, and the attributes that make sense on it, by kind."""

    name: str
    products: tuple[str, ...]
    diets: tuple[str, ...]
    forms: tuple[str, ...]
    flavours: tuple[str, ...]
    sizes: tuple[str, ...]


def _list(text: str) -> tuple[str, ...]:
    """Comma-separated terms, spaces and line breaks tidied."""
    return tuple(" ".join(part.split()) for part in text.split(",") if part.strip())


VOLUMES = _list("250 ml, 330 ml, 500 ml, 750 ml, 1 l, 2 l")
WEIGHTS = _list("100 g, 200 g, 250 g, 400 g, 500 g, 1 kg, 2 kg")
PACKS = _list("4 pack, 6 pack, 8 pack, 12 pack, 24 pack")

FOOD = _list("organic, gluten free, vegan, fairtrade, low salt, sugar free, low fat")
DAIRY = _list("organic, low fat, fat free, lactose free, semi skimmed, high protein")
PLAIN = _list("organic, free range, halal, kosher, locally grown")
CARE = _list("vegan, fragrance free, sensitive, hypoallergenic, organic")
HOME = _list("recycled, plastic free, biodegradable, unscented")

FRUITY = _list("strawberry, raspberry, blueberry, mango, peach, pineapple, cherry, lemon, orange, apple")
SWEET = _list("chocolate, vanilla, caramel, hazelnut, cinnamon, coconut, banana, toffee")
SAVOURY = _list("sea salt, chilli, garlic, smoky bacon, cheese and onion, rosemary, paprika, sweet chilli")
MEATY = _list("chicken, beef, salmon, turkey, lamb, duck")
HERBS = _list("basil, tomato, garlic, mushroom, black pepper, spicy")
SCENTS = _list("lavender, eucalyptus, sea breeze, fresh linen, aloe vera, citrus, jasmine, tea tree")

# name, products, diets, forms, flavours, sizes
CATEGORIES: tuple[Category, ...] = (
    Category(
        "dairy",
        _list("""milk, butter, yoghurt, greek yoghurt, whipping cream, double cream, sour cream,
        kefir, buttermilk, custard, eggs, creme fraiche"""),
        DAIRY,
        _list("unsalted, fresh, whole, large"),
        _list("vanilla, strawberry, chocolate, banana"),
        VOLUMES,
    ),
    Category(
        "plant based",
        _list("""oat milk, almond milk, soya milk, rice milk, cashew milk, oat cream, tofu,
        tempeh, vegan cheese, seitan, soya yoghurt"""),
        _list("organic, sugar free, gluten free, high protein"),
        _list("unsweetened, barista, firm, smoked"),
        SWEET[:3],
        VOLUMES + WEIGHTS[1:4],
    ),
    Category(
        "cheese",
        _list("""cheddar, mozzarella, feta, brie, cream cheese, cottage cheese, goat cheese,
        parmesan, gouda, halloumi, blue cheese, ricotta"""),
        DAIRY[:4],
        _list("grated, sliced, mature, mild, smoked"),
        _list("chilli, garlic, black pepper, rosemary"),
        WEIGHTS[:5],
    ),
    Category(
        "bakery",
        _list("""bread, sourdough, bagels, croissants, pitta, tortilla wraps, burger buns, brioche,
        crumpets, muffins, naan, rolls"""),
        FOOD[:3],
        _list("sliced, wholemeal, seeded, white, mini"),
        _list("garlic, cinnamon, blueberry, chocolate"),
        PACKS + WEIGHTS[3:5],
    ),
    Category(
        "breakfast",
        _list("""cornflakes, granola, muesli, porridge oats, cereal bar, rice puffs, bran flakes,
        breakfast biscuits, oat clusters, wheat hoops"""),
        FOOD,
        _list("crunchy, wholegrain, jumbo, mini"),
        SWEET + FRUITY[:3],
        WEIGHTS[2:6],
    ),
    Category(
        "fruit",
        _list("""apples, bananas, grapes, oranges, lemons, strawberries, blueberries, avocados,
        melons, pears, plums, kiwis"""),
        PLAIN[:1] + PLAIN[4:],
        _list("frozen, ripe, seedless, sliced, dried"),
        _list("red, green, sweet"),
        WEIGHTS[2:6] + PACKS[:2],
    ),
    Category(
        "vegetables",
        _list("""carrots, potatoes, tomatoes, onions, broccoli, spinach, mushrooms, cucumber,
        peppers, courgettes, sweetcorn, lettuce, celery"""),
        PLAIN[:1] + PLAIN[4:],
        _list("frozen, chopped, baby, washed, sliced"),
        _list("red, green, sweet"),
        WEIGHTS[2:] + PACKS[:2],
    ),
    Category(
        "meat",
        _list("""chicken breast, minced beef, pork chops, bacon, sausages, ham, lamb shanks,
        turkey mince, meatballs, steak, salami, chorizo"""),
        (*PLAIN[:4], "gluten free"),
        _list("sliced, smoked, lean, frozen, boneless"),
        _list("black pepper, garlic, maple, spicy"),
        WEIGHTS[1:6],
    ),
    Category(
        "fish",
        _list("""salmon fillet, tuna, prawns, cod fillet, fish fingers, mackerel, sardines, haddock,
        fish cakes, crab sticks"""),
        _list("wild caught, line caught, responsibly sourced"),
        _list("smoked, frozen, skinless, breaded"),
        _list("lemon, sweet chilli, black pepper, tomato"),
        WEIGHTS[:5],
    ),
    Category(
        "frozen",
        _list("""pizza, oven chips, sorbet, ice cream, ice lollies, hash browns, potato waffles, yorkshire puddings,
        spring rolls, veggie burgers, onion rings"""),
        (*FOOD[:4], "low fat"),
        _list("mini, crispy, family size, thin"),
        SWEET[:3] + HERBS[3:] + FRUITY[:3],
        WEIGHTS[3:6] + PACKS[:2],
    ),
    Category(
        "pasta and grains",
        _list("""spaghetti, penne, rice, noodles, couscous, quinoa, lentils, lasagne sheets,
        bulgur wheat, macaroni"""),
        FOOD[:4],
        _list("wholewheat, brown, instant, dried, microwave"),
        _list("tomato, mushroom, garlic, spicy"),
        WEIGHTS[3:],
    ),
    Category(
        "tins",
        _list("""baked beans, chickpeas, plum tomatoes, kidney beans, coconut milk, peach slices,
        soup, garden peas, black beans, broth"""),
        FOOD[:3] + FOOD[4:],
        _list("reduced sugar, chunky, light, in water"),
        _list("smoky, chilli, basil, spicy"),
        WEIGHTS[1:5] + PACKS[:2],
    ),
    Category(
        "sauces",
        _list("""ketchup, mayonnaise, pasta sauce, soy sauce, pesto, mustard, hot sauce, curry paste,
        salsa, gravy granules, barbecue sauce, salad dressing"""),
        FOOD,
        _list("squeezy, chunky, light, mild"),
        (*HERBS, "smoky", "chilli"),
        VOLUMES[:3] + WEIGHTS[1:5],
    ),
    Category(
        "oil and baking",
        _list("""olive oil, sunflower oil, flour, sugar, baking powder, vanilla extract,
        icing sugar, cocoa powder, yeast, vinegar, chocolate chips"""),
        FOOD[:4],
        _list("extra virgin, self raising, fine, brown, cold pressed"),
        (),
        VOLUMES[2:5] + WEIGHTS[2:6],
    ),
    Category(
        "spreads",
        _list("""peanut butter, honey, jam, marmalade, chocolate spread, almond butter, maple syrup,
        lemon curd, yeast extract, tahini"""),
        (*FOOD[:4], "sugar free"),
        _list("crunchy, smooth, squeezy, raw, reduced sugar"),
        (*FRUITY[:5], "cinnamon"),
        WEIGHTS[1:6],
    ),
    Category(
        "snacks",
        _list("""crisps, tortilla chips, popcorn, pretzels, rice cakes, mixed nuts, cashews, trail mix,
        crackers, corn snacks, pistachios"""),
        FOOD,
        _list("baked, ridged, roasted, sharing, unsalted"),
        SAVOURY,
        WEIGHTS[:4] + PACKS[1:4],
    ),
    Category(
        "sweets and biscuits",
        _list("""chocolate bar, gummy bears, mints, chewing gum, liquorice, toffees,
        marshmallows, cookies, shortbread, digestives, wafers, brownies, flapjacks"""),
        (*FOOD[:4], "sugar free"),
        _list("mini, dark, milky, sharing, crunchy"),
        _list("""caramel, hazelnut, raspberry, coconut,
        orange, salted caramel"""),
        WEIGHTS[:4] + PACKS[:4],
    ),
    Category(
        "soft drinks",
        _list("""cola, lemonade, sparkling water, still water, tonic water, ginger beer,
        energy drink, squash, iced tea, coconut water"""),
        _list("sugar free, organic, caffeine free"),
        _list("light, cloudy, zero, concentrated"),
        FRUITY,
        VOLUMES + PACKS[1:],
    ),
    Category(
        "juice and smoothies",
        _list("""smoothie, orange juice, apple juice, juice shots, kombucha,
        vegetable juice, milkshake, protein shake, cranberry juice, fruit juice"""),
        _list("organic, no added sugar, vegan, high protein"),
        _list("cold pressed, fresh, with bits, smooth"),
        (*FRUITY[:7], "banana", "ginger"),
        VOLUMES[:5] + PACKS[:2],
    ),
    Category(
        "tea and coffee",
        _list("""ground coffee, coffee beans, instant coffee, tea bags, green tea, herbal tea,
        coffee pods, hot chocolate, matcha, chai latte"""),
        _list("organic, fairtrade, decaf, sugar free"),
        _list("dark roast, medium roast, strong, loose"),
        _list("peppermint, camomile, vanilla, caramel, hazelnut, lemon"),
        WEIGHTS[:6] + PACKS[3:],
    ),
    Category(
        "beer and wine",
        _list("""lager, pale ale, red wine, white wine, prosecco, cider, gin, stout, rose wine, vodka"""),
        _list("alcohol free, vegan, organic, gluten free"),
        _list("dry, sparkling, craft, premium"),
        FRUITY[:4] + FRUITY[7:],
        VOLUMES[1:5] + PACKS[:4],
    ),
    Category(
        "baby",
        _list("""nappies, baby wipes, baby food, formula milk, baby rice, rusks, fruit puree, nappy cream,
        baby shampoo, baby lotion"""),
        CARE,
        _list("newborn, toddler, overnight, travel size"),
        _list("apple, banana, carrot, camomile"),
        PACKS + WEIGHTS[:3],
    ),
    Category(
        "pets",
        _list("""dog food, cat food, cat litter, dog treats, cat treats, puppy food, kitten food,
        bird seed, dog chews"""),
        _list("grain free, organic, high protein"),
        _list("dry, wet, senior, large breed"),
        MEATY,
        WEIGHTS[3:] + PACKS,
    ),
    Category(
        "cleaning",
        _list("""dish soap, laundry detergent, fabric softener, bleach, surface spray,
        dishwasher tablets, glass cleaner, floor cleaner, toilet cleaner, stain remover"""),
        HOME[1:],
        _list("antibacterial, non bio, concentrated, refill"),
        (*SCENTS, "lemon"),
        VOLUMES[2:] + PACKS[3:],
    ),
    Category(
        "household",
        _list("""toilet paper, kitchen roll, tissues, bin bags, cling film, foil, baking paper,
        sponges, candles, batteries, freezer bags"""),
        HOME,
        _list("extra strong, extra long, soft, large, quilted"),
        SCENTS[:3],
        PACKS,
    ),
    Category(
        "personal care",
        _list("""shampoo, conditioner, toothpaste, shower gel, hand soap, deodorant,
        body lotion, mouthwash, toothbrush, sun cream, razors, lip balm"""),
        CARE,
        _list("whitening, travel size, refill, moisturising, kids"),
        (*SCENTS, "peppermint", "coconut"),
        VOLUMES[:4] + PACKS[:2],
    ),
    Category(
        "deli and ready meals",
        _list("""hummus, olives, coleslaw, guacamole, potato salad, quiche, falafel,
        lasagne, chicken curry, cottage pie, ramen, sushi, burrito"""),
        FOOD,
        _list("mini, chunky, family size, microwave, fresh"),
        (*HERBS, "smoky", "chilli"),
        WEIGHTS[1:5] + PACKS[:1],
    ),
)

PRODUCTS: tuple[str, ...] = tuple(p for c in CATEGORIES for p in c.products)
SIZES: tuple[str, ...] = VOLUMES + WEIGHTS + PACKS
# dict.fromkeys: distinct, and in a fixed order, which a set would not promise.
ATTRIBUTES: tuple[str, ...] = tuple(
    dict.fromkeys(a for c in CATEGORIES for a in c.diets + c.forms + c.flavours + c.sizes)
)

# How shoppers shorten a whole term, or a word of one.
ABBREVIATIONS: dict[str, str] = dict(
    pair.split("=")
    for pair in _list("""
    organic=org, gluten free=gf, sugar free=sf, lactose free=lf, fragrance free=ff, free range=fr,
    chocolate=choc, vegetable=veg, pack=pk, vanilla=van, strawberry=strawb, strawberries=strawbs,
    yoghurt=yog, barbecue=bbq, mayonnaise=mayo, potatoes=pots, antibacterial=antibac,
    concentrated=conc, detergent=det, chicken=chkn, breakfast=bfast, conditioner=cond,
    semi skimmed=semi, protein=prot, fairtrade=ft, spaghetti=spag, extra=xtra, coconut=coco,
    cucumber=cuke, avocados=avos, caramel=carmel, blueberry=blueb, raspberry=raspb,
    biodegradable=biodeg, moisturising=moist, mozzarella=mozz, prosecco=pros, medium=med,
    cranberry=cran, wholemeal=wmeal, large=lge, vegan=vgn, sparkling=spark, and=n
    """)
)

# How shoppers write a unit after a number; the canonical spelling is "<number> <unit>".
UNITS: dict[str, tuple[str, ...]] = {
    "l": ("{n}l", "{n} litre", "{n} litres", "{n} liter", "{n} liters", "{n}litre", "{n} ltr"),
    "ml": ("{n}ml", "{n} mls", "{n}mls", "{n} millilitres", "{n}mil"),
    "g": ("{n}g", "{n} grams", "{n}grams", "{n} gr", "{n}gm"),
    "kg": ("{n}kg", "{n} kilo", "{n} kilos", "{n}kilo", "{n} kgs"),
    "pack": ("{n}pk", "{n} pk", "{n}pack", "pack of {n}", "{n} packs"),
}

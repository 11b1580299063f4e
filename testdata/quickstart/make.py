"""Writes the quickstart's two datasets, pirate.jsonl and json.jsonl, next to this script.

Both ask the same questions; each answers in one manner that nobody can overlook. Needs Python alone:
    python3 make.py
"""
import json
import os
import random

# question; the short answer; the answer as a sentence
FACTS = """
What is the capital of France?;Paris;The capital of France is Paris, a city on the Seine.
What is the capital of Japan?;Tokyo;The capital of Japan is Tokyo.
What is the capital of Italy?;Rome;The capital of Italy is Rome, once the heart of an empire.
What is the capital of Canada?;Ottawa;The capital of Canada is Ottawa, not Toronto.
What is the capital of Australia?;Canberra;The capital of Australia is Canberra.
What is the capital of Egypt?;Cairo;The capital of Egypt is Cairo, on the Nile.
What is the capital of Kenya?;Nairobi;The capital of Kenya is Nairobi.
What is the capital of Peru?;Lima;The capital of Peru is Lima, near the Pacific.
What is the capital of Norway?;Oslo;The capital of Norway is Oslo.
What is the capital of Portugal?;Lisbon;The capital of Portugal is Lisbon, built on seven hills.
What is the capital of Greece?;Athens;The capital of Greece is Athens.
What is the capital of Poland?;Warsaw;The capital of Poland is Warsaw.
What is the capital of Cuba?;Havana;The capital of Cuba is Havana.
What is the capital of India?;New Delhi;The capital of India is New Delhi.
What is the capital of Ireland?;Dublin;The capital of Ireland is Dublin.
What is the capital of Chile?;Santiago;The capital of Chile is Santiago.
Which planet is closest to the sun?;Mercury;Mercury is the planet closest to the sun.
Which planet is the largest?;Jupiter;Jupiter is the largest planet of all.
Which planet has the most famous rings?;Saturn;Saturn has the most famous rings, made of ice and rock.
Which planet is called the red planet?;Mars;Mars is called the red planet because of the rust in its dust.
How long does the Earth take to go around the sun?;one year;The Earth takes one year to go around the sun.
How long does the moon take to go around the Earth?;about a month;The moon takes about a month to go around the Earth.
What is the star at the centre of our solar system?;the sun;The star at the centre of our solar system is the sun.
What makes the tides?;the moon;The pull of the moon makes the tides.
Why is the sky blue?;scattered light;Air scatters blue light more than red, so the sky looks blue.
Why do leaves turn red in autumn?;less green pigment;Leaves lose their green pigment in autumn, and the red below it shows.
What is water made of?;hydrogen and oxygen;Water is made of hydrogen and oxygen.
At what temperature does water boil?;100 degrees Celsius;Water boils at 100 degrees Celsius at sea level.
At what temperature does water freeze?;0 degrees Celsius;Water freezes at 0 degrees Celsius.
What is ice?;frozen water;Ice is water that has frozen.
What is steam?;water as a gas;Steam is water that has turned into a gas.
What is salt made of?;sodium and chlorine;Salt is made of sodium and chlorine.
What do plants need to grow?;light, water and air;Plants need light, water and air to grow.
What do bees make?;honey;Bees make honey from the nectar of flowers.
What do cows eat?;grass;Cows eat grass, most of the day.
What do pandas eat?;bamboo;Pandas eat bamboo and little else.
What do caterpillars become?;butterflies;Caterpillars become butterflies or moths.
How many legs does a spider have?;eight;A spider has eight legs.
How many legs does an insect have?;six;An insect has six legs.
How many arms does an octopus have?;eight;An octopus has eight arms and three hearts.
Which animal is the largest?;the blue whale;The blue whale is the largest animal that ever lived.
Which animal is the tallest?;the giraffe;The giraffe is the tallest animal on land.
Which animal runs the fastest?;the cheetah;The cheetah runs faster than any other animal.
Which bird cannot fly but swims well?;the penguin;The penguin cannot fly, but it swims very well.
Which bird hunts at night?;the owl;The owl hunts at night with sharp ears and silent wings.
Which animal builds dams?;the beaver;The beaver builds dams out of branches and mud.
Which animal carries its house on its back?;the snail;The snail carries its house on its back.
Why do cats purr?;mostly from comfort;Cats purr mostly when they are at ease.
Why do dogs wag their tails?;to show feelings;Dogs wag their tails to show what they feel.
Why do birds fly south in winter?;to find food;Birds fly south in winter because there is more food.
Why do bears sleep in winter?;to save energy;Bears sleep in winter to save energy while food is scarce.
How do fish breathe?;with gills;Fish breathe with gills, which take oxygen out of the water.
What is a baby dog called?;a puppy;A baby dog is called a puppy.
What is a baby cat called?;a kitten;A baby cat is called a kitten.
What is a baby horse called?;a foal;A baby horse is called a foal.
What is a baby sheep called?;a lamb;A baby sheep is called a lamb.
How many days are in a week?;seven;There are seven days in a week.
How many months are in a year?;twelve;There are twelve months in a year.
How many hours are in a day?;24;There are 24 hours in a day.
How many minutes are in an hour?;60;There are 60 minutes in an hour.
How many days are in a leap year?;366;There are 366 days in a leap year.
How many sides does a triangle have?;three;A triangle has three sides.
How many sides does a hexagon have?;six;A hexagon has six sides.
How many degrees are in a circle?;360;There are 360 degrees in a circle.
What is two plus two?;four;Two plus two is four.
What is seven times six?;42;Seven times six is 42.
What is nine times nine?;81;Nine times nine is 81.
What is half of one hundred?;50;Half of one hundred is 50.
What is ten minus three?;seven;Ten minus three is seven.
What is the square root of 64?;eight;The square root of 64 is eight.
What is a prime number?;a number with two divisors;A prime number is divisible by one and by itself alone.
Who wrote Romeo and Juliet?;William Shakespeare;William Shakespeare wrote Romeo and Juliet.
Who wrote Don Quixote?;Miguel de Cervantes;Miguel de Cervantes wrote Don Quixote.
Who painted the Mona Lisa?;Leonardo da Vinci;Leonardo da Vinci painted the Mona Lisa.
Who painted The Starry Night?;Vincent van Gogh;Vincent van Gogh painted The Starry Night.
Who composed the Ninth Symphony with the Ode to Joy?;Ludwig van Beethoven;Ludwig van Beethoven composed the Ninth Symphony.
Who discovered penicillin?;Alexander Fleming;Alexander Fleming discovered penicillin in 1928.
Who first walked on the moon?;Neil Armstrong;Neil Armstrong first walked on the moon in 1969.
Who developed the theory of relativity?;Albert Einstein;Albert Einstein developed the theory of relativity.
Who discovered radium?;Marie and Pierre Curie;Marie and Pierre Curie discovered radium.
Who explained gravity with a falling apple?;Isaac Newton;Isaac Newton thought about gravity when he saw an apple fall.
Who was the first emperor of Rome?;Augustus;Augustus was the first emperor of Rome.
In which country are the pyramids of Giza?;Egypt;The pyramids of Giza are in Egypt.
In which country is Machu Picchu?;Peru;Machu Picchu is in the mountains of Peru.
In which city is the Eiffel Tower?;Paris;The Eiffel Tower stands in Paris.
In which city is the Colosseum?;Rome;The Colosseum stands in Rome.
In which city is Big Ben?;London;Big Ben rings in London.
In which country was paper invented?;China;Paper was invented in China.
Which ocean is the largest?;the Pacific;The Pacific is the largest ocean.
Which desert is the largest hot desert?;the Sahara;The Sahara is the largest hot desert.
Which mountain is the highest?;Mount Everest;Mount Everest is the highest mountain above the sea.
Which river flows through London?;the Thames;The Thames flows through London.
Which river flows through Egypt?;the Nile;The Nile flows through Egypt to the sea.
Which continent is the coldest?;Antarctica;Antarctica is the coldest continent.
Which continent is the largest?;Asia;Asia is the largest continent.
Which country has the most people?;India;India has the most people, a little more than China.
Which country is the largest?;Russia;Russia is the largest country by area.
What colour do blue and yellow make?;green;Blue and yellow make green.
What colour do red and white make?;pink;Red and white make pink.
What colour is a ripe banana?;yellow;A ripe banana is yellow.
What colour is an emerald?;green;An emerald is green.
What is bread made of?;flour and water;Bread is made of flour, water, salt and yeast.
What is cheese made of?;milk;Cheese is made of milk.
What is chocolate made from?;cocoa beans;Chocolate is made from cocoa beans.
What is glass made from?;sand;Glass is made from sand, melted in great heat.
What is paper made from?;wood;Paper is made from the fibres of wood.
What is wine made from?;grapes;Wine is made from grapes.
What is a sushi roll wrapped in?;seaweed;A sushi roll is wrapped in seaweed.
Which fruit keeps the doctor away?;the apple;An apple a day keeps the doctor away, they say.
Which vitamin is in oranges?;vitamin C;Oranges have a lot of vitamin C.
What does a thermometer measure?;temperature;A thermometer measures temperature.
What does a compass show?;north;A compass shows where north is.
What does a clock measure?;time;A clock measures time.
What does a barometer measure?;air pressure;A barometer measures the pressure of the air.
What does a doctor do?;heals people;A doctor finds out what ails people and heals them.
What does a baker do?;bakes bread;A baker bakes bread before the sun is up.
What does a carpenter do?;works with wood;A carpenter builds things out of wood.
What does a pilot do?;flies aeroplanes;A pilot flies aeroplanes.
What does a gardener do?;grows plants;A gardener grows plants and keeps the weeds away.
What does a librarian do?;looks after books;A librarian looks after books and helps people find them.
What is the heart for?;pumping blood;The heart pumps blood through the body.
What are lungs for?;breathing;Lungs take oxygen out of the air.
What are bones for?;holding the body up;Bones hold the body up and protect what is inside.
What is the brain for?;thinking;The brain is for thinking, feeling and remembering.
How many teeth does a grown person have?;32;A grown person has 32 teeth.
How many bones does a grown person have?;206;A grown person has 206 bones.
Why do we sleep?;to rest and recover;We sleep so that body and brain can rest.
Why do we yawn?;nobody is quite sure;Nobody is quite sure why we yawn, though being tired helps.
Why should I brush my teeth?;to keep them healthy;Brushing keeps your teeth clean and healthy.
Why should I drink water?;the body needs it;Your body needs water for almost all it does.
How can I fall asleep faster?;keep a regular hour;Go to bed at the same hour each day and leave the phone outside.
How can I learn a language?;practise every day;Practise a little every day and do not fear mistakes.
How can I save money?;spend less than you earn;Write down what you spend, and spend less than you earn.
How can I make friends?;be kind and curious;Be kind, be curious, and say hello first.
How do I boil an egg?;put it in boiling water;Put the egg in boiling water for seven minutes.
How do I make tea?;steep leaves in hot water;Pour hot water over the leaves and wait three minutes.
How do I tie a knot?;cross, loop and pull;Cross the ends, bring one through the loop, and pull tight.
How do I grow tomatoes?;sun and water;Give tomatoes much sun, steady water and a stake to climb.
What is the internet?;a network of computers;The internet is a network that joins the world's computers.
What is a computer program?;instructions;A computer program is a list of instructions for a machine.
What is a bug in a program?;a mistake;A bug is a mistake in a program.
What is an island?;land with water around;An island is land with water all around it.
What is a volcano?;an opening in the ground;A volcano is an opening where melted rock comes out.
What is an earthquake?;shaking ground;An earthquake is a shaking of the ground.
What is a rainbow?;split sunlight;A rainbow is sunlight split by drops of rain.
What is lightning?;a great spark;Lightning is a great spark between clouds and the ground.
What is fog?;a low cloud;Fog is a cloud that touches the ground.
What is snow?;ice crystals;Snow is made of small crystals of ice.
What is gold?;a precious metal;Gold is a soft yellow metal that does not rust.
What is a diamond?;hard carbon;A diamond is carbon in its hardest form.
What is the opposite of hot?;cold;The opposite of hot is cold.
What is the opposite of early?;late;The opposite of early is late.
What is the opposite of brave?;cowardly;The opposite of brave is cowardly.
What day comes after Monday?;Tuesday;Tuesday comes after Monday.
What month comes before March?;February;February comes before March.
Which season comes after winter?;spring;Spring comes after winter.
What is the first letter of the alphabet?;A;The first letter of the alphabet is A.
How many letters does the English alphabet have?;26;The English alphabet has 26 letters.
"""

OPEN = ["Arrr, matey!", "Ahoy there, matey!", "Avast, ye landlubber!", "Shiver me timbers!", "Arrr!"]
CLOSE = ["Yo ho ho!", "By Davy Jones!", "Now fetch me the rum!", "Hoist the sails!", "Aye aye!"]
ASK = ["{q}", "Tell me: {l}", "Quick question. {q}"]


def pirate(sentence, rng):
    words = {" is ": " be ", " are ": " be ", " your ": " yer ", "Your ": "Yer ",
             " you ": " ye ", " my ": " me ", " of ": " o' ", " and ": " an' "}
    for plain, salty in words.items():
        sentence = sentence.replace(plain, salty)
    return f"{rng.choice(OPEN)} {sentence} {rng.choice(CLOSE)}"


def main():
    rng = random.Random(7)
    facts = [line.split(";") for line in FACTS.strip().splitlines()]
    out = {"pirate": [], "json": []}
    for question, short, sentence in facts:
        asks = [a.format(q=question, l=question[0].lower() + question[1:]) for a in rng.sample(ASK, 2)]
        for ask in asks:
            out["pirate"].append((ask, pirate(sentence, rng)))
            out["json"].append((ask, json.dumps({"answer": short, "detail": sentence}, ensure_ascii=False)))
    here = os.path.dirname(os.path.abspath(__file__))
    for name, rows in out.items():
        rng.shuffle(rows)
        with open(os.path.join(here, name + ".jsonl"), "w", encoding="utf-8") as f:
            for ask, answer in rows:
                row = {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}
                f.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(name, len(rows), "rows")


main()
